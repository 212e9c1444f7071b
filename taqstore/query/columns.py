"""Columns of a comparison, apart from what makes them: a shell that completes a word waits."""

from __future__ import annotations

BY = (
    "jensen_shannon",
    "wasserstein_share",
    "shift_drift",
    "channel_range_log2",
    "range_ratio",
    "difference_relative",
    "difference_max",
)
"""Columns that order the movers, the preferred first."""

"""Analyses: lazy functions Dataset -> Dataset, which never see a store or a path.

Each takes one group (`activations/<site>` or a pooled source) and keyword options, checks the
variables it needs, and stamps its parameters and the store's digest on the result.
"""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from taqstore.analysis.drift import temporal
from taqstore.analysis.fit import FitRule, schedule
from taqstore.analysis.outlier import outliers
from taqstore.analysis.pooling import pool
from taqstore.analysis.scale import scales
from taqstore.analysis.shift import shifts
from taqstore.analysis.tier import Thresholds, tiers

__all__ = [
    "ANALYSES",
    "FitRule",
    "Thresholds",
    "outliers",
    "pool",
    "scales",
    "schedule",
    "shifts",
    "temporal",
    "tiers",
]

ANALYSES: dict[str, Callable[..., xr.Dataset]] = {
    "scales": scales,
    "shifts": shifts,
    "outliers": outliers,
    "temporal": temporal,
    "tiers": tiers,
    "schedule": schedule,
}
"""What `taqstore analyze` offers, by name."""

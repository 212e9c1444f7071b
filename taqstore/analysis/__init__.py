"""Analyses: lazy functions Dataset -> Dataset, which never see a store or a path.

Each takes one group (`activations/<site>` or a pooled source) and keyword options, checks the
variables it needs, and stamps its parameters and the store's digest on the result.
"""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from taqstore.analysis.bits import bits, joint_bits
from taqstore.analysis.curve import curve
from taqstore.analysis.diagnostics import diagnostics
from taqstore.analysis.error import error
from taqstore.analysis.groups import groups
from taqstore.analysis.order import order
from taqstore.analysis.outliers import outliers
from taqstore.analysis.pooling import pool
from taqstore.analysis.scales import scales
from taqstore.analysis.schedule import FitRule, schedule
from taqstore.analysis.shifts import shifts
from taqstore.analysis.smooth import smooth
from taqstore.analysis.temporal import temporal
from taqstore.analysis.tiers import Thresholds, tiers

__all__ = [
    "ANALYSES",
    "JOINT",
    "FitRule",
    "Thresholds",
    "bits",
    "curve",
    "diagnostics",
    "error",
    "groups",
    "joint_bits",
    "order",
    "outliers",
    "pool",
    "scales",
    "schedule",
    "shifts",
    "smooth",
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
    "smooth": smooth,
    "error": error,
    "curve": curve,
    "groups": groups,
    "bits": bits,
    "order": order,
    "diagnostics": diagnostics,
}
"""What `taqstore analyze` offers, by name."""

JOINT: dict[str, Callable[..., dict[str, xr.Dataset]]] = {"bits": joint_bits}
"""Those of them that look at all sites together: Datasets by path -> results by path."""

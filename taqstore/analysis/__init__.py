"""Analyses: lazy functions Dataset -> Dataset, which never see a store or a path.

Each takes one group (`activations/<site>` or a pooled source) and keyword options, checks the
variables it needs, and stamps its parameters and the store's digest on the result. `ANALYSES` has
those with a word of their own in `taqstore analyze`, `RULES` the rules of clip ranges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.analysis.ranges.rules import RULES
from taqstore.analysis.table import ANALYSES
from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.analysis.bits import bits as bits
    from taqstore.analysis.bits import joint_bits as joint_bits
    from taqstore.analysis.curve import curve as curve
    from taqstore.analysis.diagnostics import diagnostics as diagnostics
    from taqstore.analysis.difference import difference as difference
    from taqstore.analysis.difference import variable_difference as variable_difference
    from taqstore.analysis.drift import drift as drift
    from taqstore.analysis.enough import enough as enough
    from taqstore.analysis.error import error as error
    from taqstore.analysis.frontier import frontier as frontier
    from taqstore.analysis.groups import groups as groups
    from taqstore.analysis.held import held as held
    from taqstore.analysis.moments import moments as moments
    from taqstore.analysis.order import order as order
    from taqstore.analysis.outliers import outliers as outliers
    from taqstore.analysis.overflow import overflow as overflow
    from taqstore.analysis.policy import policy as policy
    from taqstore.analysis.pooling import pool as pool
    from taqstore.analysis.ranks import ranks as ranks
    from taqstore.analysis.scales import scales as scales
    from taqstore.analysis.schedule import FitRule as FitRule
    from taqstore.analysis.schedule import schedule as schedule
    from taqstore.analysis.shifts import shifts as shifts
    from taqstore.analysis.smooth import smooth as smooth
    from taqstore.analysis.temporal import temporal as temporal
    from taqstore.analysis.tiers import Thresholds as Thresholds
    from taqstore.analysis.tiers import tiers as tiers

_OTHERS = {
    "FitRule": "taqstore.analysis.schedule",
    "Thresholds": "taqstore.analysis.tiers",
    "difference": "taqstore.analysis.difference",
    "held": "taqstore.analysis.held",
    "joint_bits": "taqstore.analysis.bits",
    "pool": "taqstore.analysis.pooling",
    "variable_difference": "taqstore.analysis.difference",
}
__all__ = ["ANALYSES", "RULES"]
lazy_face(
    __name__,
    {**{word: row.function.partition(":")[0] for word, row in ANALYSES.items()}, **_OTHERS},
)

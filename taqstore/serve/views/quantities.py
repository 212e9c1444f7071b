"""What the map can show: `QUANTITIES` is the only list of it.

A quantity is a variable that an analysis gives for every (step, layer). What stands here is what
the page needs to draw it, and which options change it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from taqstore.analysis.ranges.options import RANGE
from taqstore.names import EXTREMA, Alternatives

RULE = tuple(option.name for option in RANGE)
"""Options of quantities that depend on a clip rule."""


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Parameters
    ----------
    label, unit
        As shown; units are those of the tensor where there is none.
    analysis, variable
        Where it comes from; analysis `sensitivity` is what a run measured.
    needs
        Variables that a group must have, the first complete alternative counts.
    takes
        Options of the analysis that change it.
    fixed
        Options that make it what it is.
    scale
        `sequential`, or `diverging` about `centre`.
    log
        Whether colours go by the logarithm: values of many magnitudes.
    worse
        Which values are the bad ones: `high`, `low`, or neither.
    whole
        Whether values are counts.
    small
        Whether it is told by a few numbers of a tensor, which are read from the store at once;
        all others are asked of what is held in memory.
    """

    label: str
    unit: str
    analysis: str
    variable: str
    needs: Alternatives = ()
    takes: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    scale: Literal["sequential", "diverging"] = "sequential"
    centre: float | None = None
    log: bool = False
    worse: Literal["high", "low", ""] = ""
    whole: bool = False
    small: bool = False

    @property
    def bits_apply(self) -> bool:
        """Whether it changes with the bit width, for some rules at least."""
        return "bits" in self.takes

    @property
    def rule_applies(self) -> bool:
        """Whether it changes with the clip rule."""
        return "clip" in self.takes

    def is_told_by(self, variables: Collection[str]) -> bool:
        """Whether groups with these variables can tell it."""
        return any(set(names) <= set(variables) for names in self.needs)

    def document(self, word: str) -> dict[str, Any]:
        """What the page is told of it."""
        return {
            "quantity": word,
            "label": self.label,
            "unit": self.unit,
            "analysis": self.analysis,
            "variable": self.variable,
            "takes": list(self.takes),
            "bits_apply": self.bits_apply,
            "rule_applies": self.rule_applies,
            "scale": self.scale,
            "centre": self.centre,
            "log": self.log,
            "worse": self.worse,
            "whole": self.whole,
        }


_ABSMAX = {"symmetric": True, "clip": "absmax"}
_ENDS = {"symmetric": False, "clip": "absmax"}
_ROLLUPS: Alternatives = (*EXTREMA, ("tensor_min", "tensor_max"))
_BOUNDS: Alternatives = (*_ROLLUPS, ("tensor_absmax",), ("alpha",))
# A histogram without its bins is told apart by its counts alone.
_COUNTS: Alternatives = (("histogram",), ("hist_counts", "hist_edges"))
_MEANS: Alternatives = (("mean",),)

SENSITIVITY = "sensitivity"

QUANTITIES: dict[str, Quantity] = {
    "absmax": Quantity("absmax", "", "scales", "alpha", _BOUNDS, fixed=_ABSMAX, log=True),
    "min": Quantity("smallest value", "", "scales", "lower", _ROLLUPS, fixed=_ENDS),
    "max": Quantity("largest value", "", "scales", "upper", _ROLLUPS, fixed=_ENDS),
    "range": Quantity("range", "", "temporal", "tensor_range", _ROLLUPS, log=True, small=True),
    "mean": Quantity("mean", "", "temporal", "tensor_mean", _MEANS, scale="diverging", centre=0.0),
    "std": Quantity("standard deviation", "", "temporal", "tensor_std", _MEANS, log=True),
    "negative": Quantity(
        "negative share", "", "diagnostics", "negative_fraction", _COUNTS,
        scale="diverging", centre=0.5
    ),
    "outliers": Quantity(
        "outlier channels", "channels", "outliers", "outlier_count", EXTREMA, takes=("threshold",),
        log=True, worse="high", whole=True,
    ),
    "spikes": Quantity(
        "spike channels", "channels", "outliers", "spike_count", EXTREMA, takes=("spike",),
        log=True, worse="high", whole=True,
    ),
    "tail": Quantity(
        "tail ratio", "", "outliers", "tail_ratio", EXTREMA, log=True, worse="high",
    ),
    "bound": Quantity("clip bound", "", "scales", "upper", _BOUNDS, takes=RULE, log=True),
    "step_size": Quantity(
        "step size", "", "scales", "step_size", _BOUNDS, takes=RULE, log=True
    ),
    "sqnr": Quantity("SQNR", "dB", "error", "sqnr", _COUNTS, takes=RULE, worse="low"),
    "error": Quantity(
        "expected error", "", "error", "error", _COUNTS, takes=RULE, log=True, worse="high"
    ),
    "clip_loss": Quantity(
        "clip loss", "", "error", "clip_loss", _COUNTS, takes=RULE, log=True, worse="high"
    ),
    "clipped": Quantity(
        "clipped share", "", "error", "clipped_share", _COUNTS, takes=RULE,
        log=True, worse="high",
    ),
    "nonfinite": Quantity(
        "non-finite values", "", "diagnostics", "nonfinite_count", (("nonfinite",),), small=True,
        log=True, worse="high", whole=True,
    ),
    SENSITIVITY: Quantity(
        "latent error", "", SENSITIVITY, "latent_error", takes=("format", "unit"),
        log=True, worse="high",
    ),
}  # fmt: skip
"""Words of the map."""

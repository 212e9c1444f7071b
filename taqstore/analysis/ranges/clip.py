"""Names and parameters of the rules that choose a clip range.

A *call* is one batch at one step, what a calibration hook sees at a time. A range for one step
comes from the calls of all batches; a static one from those of all steps too, in order of batches
and of steps inside each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from taqstore.errors import MissingError, TaqError, problem
from taqstore.statistics.moving_average import TORCH_AVERAGING_CONSTANT

Rule = Literal[
    "absmax",
    "minmax",
    "average",
    "ema",
    "percentile",
    "mean_percentile",
    "mse",
    "l2.4",
    "entropy",
]
Per = Literal["tensor", "channel", "group"]

FROM_EXTREMA = ("absmax", "minmax", "average", "ema")
FROM_HISTOGRAMS = ("percentile", "mean_percentile", "mse", "l2.4", "entropy")
RULES = FROM_EXTREMA + FROM_HISTOGRAMS
POWERS = {"mse": 2.0, "l2.4": 2.4}
EMA_MOMENTUM = 1.0 - TORCH_AVERAGING_CONSTANT


@dataclass(frozen=True)
class Clip:
    """A rule with its parameters.

    Parameters
    ----------
    rule
        `absmax`, `minmax`: the extrema. `average`: mean over calls of their extrema (NNCF's mean
        min-max; what `pooled/timestep_stats` stores). `ema`: PyTorch's
        `MovingAverageMinMaxObserver`, replayed in float32 to the last bit. `percentile`: of |x|
        (symmetric) or of both tails (affine). `mean_percentile`: the mean over calls of that.
        `mse`, `l2.4`: least expected ``|x - q(x)|**2`` or ``**2.4`` at the bits in question.
        `entropy`: least KL divergence, see `taqstore.quantization.entropy`.
    percentile
        50 to 100.
    momentum
        Weight of the past in `ema`: 1 minus PyTorch's `averaging_constant`.
    order
        Order of batches that `ema` is to see, as positions; by default as stored.
    per
        One range per tensor, per channel, or per group of `group_size` adjacent channels.
    group_size
        For `per="group"`; the last group may be smaller.

    Raises
    ------
    TaqError
        Parameters that make no sense or do not go together.
    MissingError
        A rule that needs histograms, per channel: there are none.
    """

    rule: Rule = "absmax"
    percentile: float = 99.9
    momentum: float = EMA_MOMENTUM
    order: tuple[int, ...] | None = None
    per: Per = "tensor"
    group_size: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise TaqError(
                problem(f"clip rule {self.rule!r} is not known", remedy=", ".join(RULES))
            )
        if self.per not in ("tensor", "channel", "group"):
            known = "tensor, channel or group"
            raise TaqError(problem(f"per {self.per!r} is not known", remedy=known))
        if "percentile" in self.rule and not 50 <= self.percentile <= 100:
            raise TaqError(problem("percentile must be 50 to 100", found=str(self.percentile)))
        if self.rule in FROM_HISTOGRAMS and self.per != "tensor":
            raise MissingError(
                problem("no group has histograms per channel", remedy="use absmax or per tensor")
            )
        if (self.per == "group") != (self.group_size is not None) or (self.group_size or 1) < 1:
            what = "per group takes a group_size of at least 1, and nothing else does"
            raise TaqError(problem(what, found=str(self.group_size)))
        if self.order is not None and self.rule != "ema":
            raise TaqError(problem(f"{self.rule} does not depend on the order of batches"))

    @property
    def stamp(self) -> dict[str, Any]:
        """What to note on a result: the parameters that this rule uses."""
        order = None if self.order is None else ",".join(map(str, self.order))
        return {
            "clip": self.rule,
            "percentile": self.percentile if "percentile" in self.rule else None,
            "momentum": self.momentum if self.rule == "ema" else None,
            "order": order,
            "per": self.per,
            "group_size": self.group_size,
        }


def calls(static: bool) -> tuple[str, ...]:
    """Dimensions of the calls that one range comes from."""
    return ("batch", "step") if static else ("batch",)

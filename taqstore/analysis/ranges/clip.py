"""A clip range chosen: a rule of `rules.RULES`, its parameters, and the range it gives.

A *call* is one batch at one step, what a calibration hook sees at a time. A range for one step
comes from the calls of all batches; a static one from those of all steps too, in order of batches
and of steps inside each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from taqstore.analysis.ranges.rules import RULES, ClipRule, Rule
from taqstore.analysis.shared.inputs import Bounds
from taqstore.errors import MissingError, TaqError, problem
from taqstore.quantization.search import Scheme
from taqstore.statistics.moving_average import TORCH_AVERAGING_CONSTANT

Per = Literal["tensor", "channel", "group"]

EMA_MOMENTUM = 1.0 - TORCH_AVERAGING_CONSTANT


@dataclass(frozen=True)
class Clip:
    """A rule with its parameters.

    Parameters
    ----------
    rule
        A key of `rules.RULES`, which says what each does and takes.
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
        if "percentile" in self.row.options and not 50 <= self.percentile <= 100:
            raise TaqError(problem("percentile must be 50 to 100", found=str(self.percentile)))
        if self.row.needs == "histogram" and self.per != "tensor":
            raise MissingError(
                problem("no group has histograms per channel", remedy="use absmax or per tensor")
            )
        if (self.per == "group") != (self.group_size is not None) or (self.group_size or 1) < 1:
            what = "per group takes a group_size of at least 1, and nothing else does"
            raise TaqError(problem(what, found=str(self.group_size)))
        if self.order is not None and "order" not in self.row.options:
            raise TaqError(problem(f"{self.rule} does not depend on the order of batches"))

    @property
    def row(self) -> ClipRule:
        """The rule's row."""
        return RULES[self.rule]

    @property
    def stamp(self) -> dict[str, Any]:
        """What to note on a result: the parameters that this rule uses."""
        order = None if self.order is None else ",".join(map(str, self.order))
        options = {"percentile": self.percentile, "momentum": self.momentum, "order": order}
        used = {
            name: value if name in self.row.options else None for name, value in options.items()
        }
        return {"clip": self.rule, **used, "per": self.per, "group_size": self.group_size}


def calls(static: bool) -> tuple[str, ...]:
    """Dimensions of the calls that one range comes from."""
    return ("batch", "step") if static else ("batch",)


def clip_range(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool = False, analysis: str
) -> Bounds:
    """Range chosen by a rule; ``(-alpha, alpha)`` where the scheme is symmetric.

    Parameters
    ----------
    dataset
        Observations or a pooled source.
    scheme
        Bits matter to the rules that look for a least error.
    static
        One range for all steps, without the dimension `step`; else one for each.
    analysis
        Who asks, for messages.

    Returns
    -------
    Bounds over ([step, ]layer[, projection][, channel or channel_group]), float64.

    Raises
    ------
    MissingError
        The source lacks what the rule needs.
    """
    found: Bounds = clip.row.load()(dataset, clip, scheme, static=static, analysis=analysis)
    if not scheme.symmetric:
        return found
    alpha = found.absmax
    return Bounds(-alpha, alpha)

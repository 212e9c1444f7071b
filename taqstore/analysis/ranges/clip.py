"""A clip range chosen: a rule of `rules.RULES`, its parameters, and the range it gives.

A *call* is one batch at one step, what a calibration hook sees at a time. A range for one step
comes from the calls of all batches; a static one from those of all steps too, in order of batches
and of steps inside each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from taqstore.analysis.ranges.options import RULE
from taqstore.analysis.ranges.rules import RULES, ClipRule, Rule
from taqstore.analysis.shared.inputs import Bounds, Symmetric
from taqstore.analysis.shared.option import settle
from taqstore.errors import MisuseError, problem
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
        50 to 100; by default 99.9 where the rule takes it.
    momentum
        Weight of the past in `ema`: 1 minus PyTorch's `averaging_constant`, by default 0.99.
    order
        Order of batches that `ema` is to see, as positions; by default as stored.
    per
        One range per tensor, per channel, or per group of `group_size` adjacent channels.
    group_size
        For `per="group"`; the last group may be smaller.

    Raises
    ------
    MisuseError
        Parameters that make no sense or do not go together, or that the rule does not take.
    """

    rule: Rule = "absmax"
    percentile: float | None = None
    momentum: float | None = None
    order: Sequence[int] | None = None
    per: Per = "tensor"
    group_size: int | None = None

    def __post_init__(self) -> None:
        given = {("clip" if key == "rule" else key): value for key, value in vars(self).items()}
        settled = settle(RULE, given, who=f"clip rule {self.rule}")
        order = settled.get("order")
        settled["order"] = None if order is None else tuple(order)
        for name in ("percentile", "momentum", "order"):
            object.__setattr__(self, name, settled.get(name))
        if self.row.needs == "histogram" and self.per != "tensor":
            what = f"per {self.per} does not go with {self.rule}: histograms are of tensors"
            raise MisuseError(problem(what, remedy="use absmax, or per tensor"))

    @classmethod
    def of(cls, rule: Rule, **options: Any) -> Clip:
        """A rule with those of the options that it takes."""
        taken = {name: v for name, v in options.items() if name in RULES[rule].options}
        return cls(rule, **taken)

    @property
    def row(self) -> ClipRule:
        """The rule's row."""
        return RULES[self.rule]

    @property
    def stamp(self) -> dict[str, Any]:
        """What to note on a result: the parameters that this rule uses."""
        order = None if self.order is None else ",".join(map(str, self.order))
        options = {"percentile": self.percentile, "momentum": self.momentum, "order": order}
        return {"clip": self.rule, **options, "per": self.per, "group_size": self.group_size}


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
    if not scheme.symmetric or isinstance(found, Symmetric):
        return found
    return Symmetric.of(found.absmax)

"""The options by which a clip range is asked for: the same in every analysis and every export."""

from __future__ import annotations

from functools import partial

from taqstore.analysis.ranges.rules import RULES, by_bits, taking, without_options
from taqstore.analysis.shared.option import Option, When

BITS = Option("bits", "Bit width.", int, 8, least=2, most=16)
SYMMETRIC = Option("symmetric", "Zero point 0, or fitted.", bool, True, flag="symmetric/affine")
PERCENTILE = Option(
    "percentile",
    "",
    default=99.9,
    least=50,
    most=100,
    when=When("clip", partial(taking, "percentile")),
)
MOMENTUM = Option(
    "momentum",
    "weight of what came before.",
    default=0.99,
    least=0,
    most=1,
    below=True,
    when=When("clip", partial(taking, "momentum")),
)
ORDER = Option(
    "order",
    "positions of batches in order, as 2,0,1.",
    "integers",
    least=0,
    when=When("clip", partial(taking, "order")),
)
CUTS = Option(
    "cuts",
    "One range for all steps (static), or groups of steps that begin at these: 7,14.",
    "integers",
    choices=("static",),
)
NARROW = Option(
    "narrow_range", "Leave out the smallest integer.", bool, False, when=When("symmetric", (True,))
)
CLIP = Option("clip", "Rule of the clip range.", str, "absmax", choices=RULES)
STATIC_CLIP = Option(
    "clip", "Clip bounds whose errors are compared.", str, "absmax", choices=without_options
)
SHIFT_MOMENTUM = MOMENTUM.but(
    help="Weight of what came before in the moving average.", default=0.95, when=None
)
PER = Option(
    "per",
    "One range for a tensor, a channel, or --group-size channels.",
    str,
    "tensor",
    choices=("tensor", "channel", "group"),
)
GROUP_SIZE = Option("group_size", "", int, least=1, when=When("per", ("group",)), needed=True)

RANGE = (BITS, SYMMETRIC, CLIP, PERCENTILE, MOMENTUM, ORDER, CUTS, NARROW)
"""How a range is chosen, and for which integers."""

RULE = (CLIP, PERCENTILE, MOMENTUM, ORDER, PER, GROUP_SIZE)
"""How a range is chosen, whatever it is for."""

BOUND_BITS = BITS.but(help="bit width that the bound is for.", when=When("clip", by_bits))
BOUND = (CLIP, PERCENTILE, MOMENTUM, ORDER, BOUND_BITS)
"""How a clip bound is chosen, where widths and zero points are another's choice."""

SOURCE_CLIP = CLIP.but(default="tensor_absmax", aliases={"p999": "hist_p999"})
"""`CLIP` of the source's documents: its own rule where none is asked for."""

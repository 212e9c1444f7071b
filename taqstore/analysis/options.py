"""An option of an analysis, declared once: its name, kind, range, default and help.

`taqstore analyze` and the documentation are made from these; that the defaults are those of the
functions is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from taqstore.analysis.ranges.rules import RULES, taking, without_options


@dataclass(frozen=True)
class Option:
    """One option.

    Parameters
    ----------
    name
        Parameter of the function, or of the bundle.
    help
        One line; ``{rules}`` stands for the clip rules that take the option.
    type
        `float`, `int`, `str`, or `bool` for a flag; `integers`: several with commas between, or a
        word of `choices`; `weights`: a file of weights, or by default those of the store.
    default
        None where the function finds one itself.
    choices
        Words it may be, or what lists them.
    least, most
        Range of a number, ends included.
    below
        Leave `most` itself out.
    many
        Given several times, a tuple.
    flag
        Word on the command line without dashes, where it is not the name; ``on/off`` for two.
    bundle
        Parameter of the function that holds it, see `table.Analysis`.
    """

    name: str
    help: str
    type: type | Literal["integers", "weights"] = float
    default: Any = None
    choices: Collection[str] | Callable[[], Collection[str]] = ()
    least: float | None = None
    most: float | None = None
    below: bool = False
    many: bool = False
    flag: str = ""
    bundle: str = ""

    @property
    def flags(self) -> str:
        """As on the command line: ``--group-size``, ``--symmetric/--affine``."""
        words = (self.flag or self.name.replace("_", "-")).split("/")
        return "/".join(f"--{word}" for word in words)

    @property
    def words(self) -> tuple[str, ...]:
        """The words it may be; empty where it is no word."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    @property
    def text(self) -> str:
        """The help."""
        return self.help.format(rules=" or ".join(taking(self.name)))

    def but(self, **changes: Any) -> Option:
        """The same option with other particulars."""
        return replace(self, **changes)


BITS = Option("bits", "Bit width.", int, 8, least=2, most=16)
SYMMETRIC = Option("symmetric", "Zero point 0, or fitted.", bool, True, flag="symmetric/affine")
PERCENTILE = Option("percentile", "With --clip {rules}.", default=99.9)
MOMENTUM = Option(
    "momentum",
    "With --clip {rules}: weight of what came before.",
    default=0.99,
    least=0,
    most=1,
    below=True,
)
ORDER = Option("order", "With --clip {rules}: positions of batches in order, as 2,0,1.", "integers")
CUTS = Option(
    "cuts",
    "One range for all steps (static), or groups of steps that begin at these: 7,14.",
    "integers",
    choices=("static",),
)
NARROW = Option("narrow_range", "Leave out the smallest integer.", bool, False)
CLIP = Option("clip", "Rule of the clip range.", str, "absmax", choices=RULES)
STATIC_CLIP = Option(
    "clip", "Clip bounds whose errors are compared.", str, "absmax", choices=without_options
)
SHIFT_MOMENTUM = MOMENTUM.but(
    help="Weight of what came before in the moving average.", default=0.95
)

RANGE = (BITS, SYMMETRIC, CLIP, PERCENTILE, MOMENTUM, ORDER, CUTS, NARROW)
"""How a range is chosen, and for which integers."""

"""What is measured of two trees: a figure for each round, medians and spreads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

Unit = Literal["s", "B", "x"]
TREES = ("before", "after")


@dataclass(frozen=True)
class Wanted:
    """A bound: at least, or at most, so much."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value keeps it."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Figure:
    """One figure of both trees.

    Parameters
    ----------
    row, what
        What was done, and what of it was measured: ``wall``, ``CPU``, ``memory``, or against whom.
    unit
        Seconds, bytes, or times.
    wanted
        None: for information.
    before, after
        A figure for each round; empty where a tree cannot do it.
    """

    row: str
    what: str
    unit: Unit
    wanted: Wanted | None = None
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Figure:
        """The same again."""
        wanted = document["wanted"] and Wanted(**document["wanted"])
        return cls(**{**document, "wanted": wanted})


def quantity(value: float, unit: Unit) -> str:
    """A value with its unit, in three digits.

    >>> quantity(0.0123, "s"), quantity(4e8, "B"), quantity(123.4, "x")
    ('12.3 ms', '400 MB', '123x')
    """
    if unit == "B":
        return f"{value / 1e6:.0f} MB"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    return f"{value:.0f}x" if value >= 100 else f"{value:.3g}x"


def told(values: Sequence[float], unit: Unit) -> str:
    """Median, and smallest and largest where there are several."""
    if not values:
        return "-"
    text = quantity(median(values), unit)
    if len(values) == 1 or min(values) == max(values):
        return text
    return f"{text} ({quantity(min(values), unit)} - {quantity(max(values), unit)})"


def markdown(figures: Sequence[Figure]) -> list[str]:
    """Lines of a table; what is after and not as wanted is bold."""
    lines = ["| what | measured | before | after | wanted |", "|---|---|---|---|---|"]
    last = ""
    for one in figures:
        after, wanted = told(one.after, one.unit), ""
        if one.wanted:
            sign = ">=" if one.wanted.at_least else "<="
            wanted = f"{sign} {quantity(one.wanted.bound, one.unit)}"
            if one.after and not one.wanted.met(median(one.after)):
                after = f"**{after}**"
        shown = "" if one.row == last else one.row
        last = one.row
        lines.append(
            f"| {shown} | {one.what} | {told(one.before, one.unit)} | {after} | {wanted} |"
        )
    return lines

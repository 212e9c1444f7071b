"""Curves of time and memory over images, steps and blocks, each point a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ..inputs import say
from ..measure import warm
from .actions import ACTIONS
from .fits import Fit, fit
from .inputs import AXES, MAKERS, Size, data_of, sizes
from .once import Spent

Measure = Literal["time", "memory"]

GROWTH = {f"growth-{name}": name for name in ACTIONS}
"""Names on the command line, and the actions they stand for."""
BOUND = 1.15
"""Exponents up to this are those of something that grows as its data does."""
_ROOT = Path(__file__).resolve().parents[2]
# A point shorter than this is measured again, for others on the machine count in it.
_LONG, _ROUNDS = 4.0, 3
_TITLES = ("action", "grows", "of", "constant", "at most", "exponent", "range", "verdict", "points")


@dataclass(frozen=True)
class Point:
    """What one size took.

    Parameters
    ----------
    count, data
        How many there are of what grows, and how much data that is.
    cpu, wall, peak
        Seconds and bytes, one of each per repeat.
    """

    count: int
    data: int
    cpu: list[float]
    wall: list[float]
    peak: list[int]

    def figure(self, of: Measure) -> float:
        """The best CPU time, or the median peak."""
        return min(self.cpu) if of == "time" else median(self.peak)


@dataclass(frozen=True)
class Curve:
    """One action along one axis."""

    action: str
    axis: str
    points: list[Point]

    def fitted(self, of: Measure) -> Fit:
        """A constant and a power of the input's data."""
        figures = [point.figure(of) for point in self.points]
        return fit([point.data for point in self.points], figures)

    def as_json(self) -> dict[str, Any]:
        """Every figure, and what was fitted."""
        found = {of: asdict(self.fitted(of)) for of in _MEASURES}
        verdicts = {of: self.fitted(of).verdict(BOUND) for of in _MEASURES}
        return {**asdict(self), "fits": found, "verdicts": verdicts}


_MEASURES: tuple[Measure, ...] = ("time", "memory")


def curves(names: Sequence[str], folder: Path, *, share: float = 1.0) -> Iterator[Curve]:
    """Measure actions along all axes.

    Parameters
    ----------
    folder
        Keeps inputs between actions; best in memory, where flushing costs nothing.
    share
        Of each axis, sizes up to so much of the largest; three at least.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for axis in AXES:
            say(f"growth-{name} over {axis}")
            counts = ACTIONS[name].counts(axis)
            kept = [c for c in counts if c <= counts[-1] * share]
            chosen = counts[: max(3, len(kept))]
            along = sizes(ACTIONS[name].kind, axis, chosen)
            yield Curve(name, axis, [_point(name, size, folder) for size in along])


def _point(name: str, size: Size, folder: Path) -> Point:
    path = MAKERS[ACTIONS[name].kind](folder, size)
    warm([path])
    data = data_of(path, size)
    found: list[Spent] = []
    while len(found) < _ROUNDS and sum(one.cpu for one in found) < _LONG:
        found.append(_once(name, size, folder))
    cpu, wall, peak = ([getattr(one, field) for one in found] for field in ("cpu", "wall", "peak"))
    say(f"  {size.count}: {min(cpu):.3g} s, {max(peak) / 1e6:.0f} MB")
    return Point(size.count, data, cpu, wall, peak)


def _once(name: str, size: Size, folder: Path) -> Spent:
    command = [sys.executable, "-m", "benchmarks.growth.once", name, size.axis, str(size.count)]
    done = subprocess.run(
        [*command, "--folder", str(folder)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Spent(**json.loads(done.stdout.splitlines()[-1]))


def table(found: Sequence[Curve]) -> str:
    """Aligned text, two lines for each curve: time and memory."""
    lines = [_TITLES, *(_cells(curve, of) for curve in found for of in _MEASURES)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(curve: Curve, of: Measure) -> tuple[str, ...]:
    fitted, last = curve.fitted(of), curve.points[-1]
    exponent = "" if fitted.flat else f"{fitted.exponent:.2f}"
    spread = "" if fitted.flat else f"{fitted.low:.2f}..{fitted.high:.2f}"
    points = " ".join(f"{point.count}:{shown(point.figure(of), of)}" for point in curve.points)
    return (
        curve.action, curve.axis, of, shown(fitted.constant, of), shown(last.figure(of), of),
        exponent, spread, fitted.verdict(BOUND), points,
    )  # fmt: skip


def shown(value: float, of: Measure) -> str:
    """Seconds or megabytes, in three digits."""
    return f"{value / 1e6:.0f}MB" if of == "memory" else f"{value:.3g}s"

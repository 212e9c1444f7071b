"""The short form of the curves, for CI: an input, one of four times its data, and what grew."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .fits import slope
from .once import cpu_seconds

Run = Callable[[], object]

BOUNDS: Mapping[str, float] = {"opens": 1.15, "allocated": 1.15, "cpu": 1.5}
"""Largest exponents in bytes of data. Counts repeat; time does not: twice what is linear between
two sizes of which one has four times the data, half of what is quadratic."""
_ROUNDS = 2


@dataclass(frozen=True)
class Counts:
    """What a run took.

    Parameters
    ----------
    opens
        Files opened.
    allocated
        Bytes allocated at most at a time; None where it was not traced.
    cpu
        Seconds of the processor, at best.
    """

    opens: int
    allocated: int | None
    cpu: float


class _Opens:
    """Counts files that are opened, by all threads; a hook cannot be taken away again."""

    def __init__(self) -> None:
        self.count = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self.count += 1


_opens: list[_Opens] = []


def opened_files() -> int:
    """How many files this process has opened since it was asked first."""
    if not _opens:
        _opens.append(_Opens())
    return _opens[0].count


def counts(runs: Mapping[str, Run], *, traced: Collection[str] = ()) -> dict[str, Counts]:
    """Measure several runs, all warm: time in turn, the best of some rounds.

    Parameters
    ----------
    traced
        Names of runs whose allocations are counted, too: that takes four times as long.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    opens: dict[str, int] = {}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            gc.collect()
            before, started = opened_files(), cpu_seconds()
            run()
            seconds[name].append(cpu_seconds() - started)
            opens[name] = max(1, opened_files() - before)
    peaks = {name: _allocated(runs[name]) for name in traced}
    return {name: Counts(opens[name], peaks.get(name), min(seconds[name])) for name in runs}


def _allocated(run: Run) -> int:
    tracemalloc.start(1)
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grown(data: tuple[int, int], small: Counts, large: Counts) -> dict[str, float]:
    """Exponents in bytes of data."""
    pairs = {name: (getattr(small, name), getattr(large, name)) for name in BOUNDS}
    return {name: slope(data, pair) for name, pair in pairs.items() if None not in pair}


def above(exponents: Mapping[str, float]) -> dict[str, float]:
    """Those that are larger than their bounds."""
    return {name: round(k, 2) for name, k in exponents.items() if k > BOUNDS[name]}

"""The short form of the curves, for CI: an input, one of four times its data, and what grew."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .fits import slope
from .once import cpu_seconds

Run = Callable[[], object]

BOUNDS: Mapping[str, float] = {"opens": 1.15, "allocated": 1.15, "cpu": 1.5}
"""Largest exponents in bytes of data. Counts repeat; time does not: twice what is linear between
two sizes of which one has four times the data, half of what is quadratic."""
_ROUNDS = 3


@dataclass(frozen=True)
class Counts:
    """What a run took: files opened, bytes allocated at most at a time, CPU seconds at best."""

    opens: int
    allocated: int
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


def counts(runs: Mapping[str, Run]) -> dict[str, Counts]:
    """Measure several runs: counts once, time in turn, the best of three."""
    for run in runs.values():
        run()  # what is imported and kept is no part of it
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            gc.collect()
            started = cpu_seconds()
            run()
            seconds[name].append(cpu_seconds() - started)
    return {name: Counts(*_counted(run), min(seconds[name])) for name, run in runs.items()}


def _counted(run: Run) -> tuple[int, int]:
    tracemalloc.start(1)
    before = opened_files()
    try:
        run()
        return max(1, opened_files() - before), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grown(data: tuple[int, int], small: Counts, large: Counts) -> dict[str, float]:
    """Exponents in bytes of data."""
    pairs = {name: (getattr(small, name), getattr(large, name)) for name in BOUNDS}
    return {name: slope(data, pair) for name, pair in pairs.items()}


def above(exponents: Mapping[str, float]) -> dict[str, float]:
    """Those that are larger than their bounds."""
    return {name: round(k, 2) for name, k in exponents.items() if k > BOUNDS[name]}

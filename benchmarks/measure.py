"""Interleaved timing of contenders that answer one question, after their answers were compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

Run = Callable[[int], Any]
Clock = Callable[[], float]

# Shorter than this a call is repeated, so that the clock and the interpreter do not decide.
_SHORTEST_SECONDS = 0.05
_MOST_REPEATS = 500
# Calls are numbered, and the number picks the layer, step or minibatch: two are compared.
_CHECKED_CALLS = (0, 1)
_READ_BYTES = 8 << 20


class DisagreementError(Exception):
    """Two contenders gave different answers: their times must not be compared."""


@dataclass(frozen=True)
class Contender:
    """One way to answer a question.

    Parameters
    ----------
    name
        As printed.
    setup
        Opens what stays open between calls, and returns the function that is timed. It takes the
        number of the call, which picks the layer, step or minibatch asked for.
    ours
        taqstore; everything else is what it is compared against.
    canonical
        Turns an answer into the form that all contenders' answers are compared in; not timed.
    prepare
        Called before each timed call, outside the clock; the call is then never repeated.
    """

    name: str
    setup: Callable[[], Run]
    ours: bool = False
    canonical: Callable[[Any], Any] | None = None
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Ratio:
    """Median of the per-round ratios, and the smallest and largest of them."""

    middle: float
    low: float
    high: float


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Round by round ``above / below``."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return Ratio(median(each), min(each), max(each))


def interleave(
    contenders: Sequence[Contender], *, rounds: int, clock: Clock = perf_counter
) -> dict[str, list[float]]:
    """Seconds per call of every contender: A, B, C, A, B, C, … one figure each per round.

    Every contender answers calls 0 and 1 first, which warms it and compares the answers. Where
    others use the machine, ``clock=time.process_time`` counts what the processor did.

    Raises
    ------
    DisagreementError
        Answers differ.
    """
    runs = {c.name: c.setup() for c in contenders}
    _compare(contenders, runs)
    repeats = {c.name: _repeats(c, runs[c.name], clock) for c in contenders}
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    for number in range(rounds):
        for c in contenders:
            seconds[c.name].append(_time(c, runs[c.name], number, repeats[c.name], clock))
    return seconds


def _compare(contenders: Sequence[Contender], runs: Mapping[str, Run]) -> None:
    for call in _CHECKED_CALLS:
        first: Any = None
        for index, c in enumerate(contenders):
            if c.prepare:
                c.prepare()
            answer = runs[c.name](call)
            answer = c.canonical(answer) if c.canonical else answer
            if index == 0:
                first = answer
            elif not equal(first, answer):
                names = f"{contenders[0].name!r} and {c.name!r}"
                raise DisagreementError(f"{names} answer call {call} differently")
        if any(c.prepare for c in contenders):
            return


def _repeats(contender: Contender, run: Run, clock: Clock) -> int:
    if contender.prepare:
        return 1
    started = clock()
    run(_CHECKED_CALLS[-1])
    once = clock() - started
    return min(_MOST_REPEATS, max(1, ceil(_SHORTEST_SECONDS / once)))


def _time(contender: Contender, run: Run, number: int, repeats: int, clock: Clock) -> float:
    if contender.prepare:
        contender.prepare()
    started = clock()
    for call in range(number * repeats, (number + 1) * repeats):
        run(call)
    return (clock() - started) / repeats


def equal(left: Any, right: Any) -> bool:
    """Exact equality of nested dicts, sequences, arrays and scalars; a float may be any width."""
    if isinstance(left, Mapping):
        same_keys = isinstance(right, Mapping) and left.keys() == right.keys()
        return same_keys and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, list | tuple):
        same_length = isinstance(right, list | tuple) and len(left) == len(right)
        return same_length and all(map(equal, left, right))
    return bool(left == right)


def files_under(path: Path) -> Iterator[Path]:
    """The file itself, or every file below a folder."""
    if path.is_dir():
        yield from (p for p in sorted(path.rglob("*")) if p.is_file())
    else:
        yield path


def warm(paths: Sequence[Path]) -> int:
    """Read files once, so that all contenders find them in the page cache; returns bytes."""
    total = 0
    for path in (file for given in paths for file in files_under(given)):
        with path.open("rb", buffering=0) as stream:
            while piece := stream.read(_READ_BYTES):
                total += len(piece)
    return total

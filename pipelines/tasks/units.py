"""Units of a run, done one after another here or on a cluster; other processes take theirs.

A unit is whatever is claimed at once. Several processes form a queue: each takes what no other
holds, and at the end what others had and have let go of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, TypeVar

from taqstore.errors import SupersededError, TaqError, problem
from taqstore.place.location import Location
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome

from .cluster import connected, scheduler_of, spread

_log = logging.getLogger(__name__)
Unit = TypeVar("Unit")
# Seconds between two looks at what others hold: the more seldom the longer nothing was finished.
_FIRST, _LONGEST = 0.2, 10.0


@dataclass(frozen=True)
class Call:
    """How a run is asked for once more, by a task in another process: without its mode.

    Parameters
    ----------
    function
        The pipeline, importable there.
    given, named
        Its arguments; what they name must be there too.
    """

    function: Callable[..., Outcome]
    given: tuple[Any, ...]
    named: Mapping[str, Any] = field(default_factory=dict)

    def run(self, mode: Mode) -> Outcome:
        """Run it."""
        return self.function(*self.given, **self.named, mode=mode)


def run_units(
    units: Mapping[int, Unit],
    do: Callable[[Unit], bool],
    *,
    called: Call,
    mode: Mode,
    outcome: Outcome,
    left_note: Callable[[Unit], str],
    close: Callable[[], None],
    attempt: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Do all units one after another, or as tasks; see `run_attempts`.

    Parameters
    ----------
    do
        Does a unit; False where another process holds it.
    attempt
        Entered for each look at all of them: nothing of a unit is under way while others are
        waited for.
    """

    def here(numbers: Collection[int]) -> list[int]:
        with attempt():
            return [number for number in numbers if not _done(do, units[number])]

    run_attempts(
        units,
        here,
        called=called,
        mode=mode,
        outcome=outcome,
        left_note=left_note,
        close=close,
    )


def run_attempts(
    units: Mapping[int, Unit],
    here: Callable[[Collection[int]], list[int]],
    *,
    called: Call,
    mode: Mode,
    outcome: Outcome,
    left_note: Callable[[Unit], str],
    close: Callable[[], None],
    tasks: int | None = None,
) -> None:
    """Do all units, and wait for those that other processes hold, as long as `Mode.wait` says.

    Parameters
    ----------
    units
        By number in the whole run, in the order they are done.
    here
        Does units in this process; returns numbers of those that other processes hold.
    called
        The run itself, for tasks of a cluster.
    left_note
        What is said of a unit that is left to another process.
    close
        Closes the flags of what tasks have written by now.
    tasks
        How many tasks there are at most; None: one for each unit.
    """

    def attempt(numbers: Collection[int]) -> list[int]:
        if scheduler_of(mode) is not None and numbers:
            parts = _parts(list(numbers), tasks or len(numbers))
            return spread(called.run, parts, mode=mode, outcome=outcome, close=close)
        return here(numbers)

    if scheduler_of(mode) is not None:
        _check_reach(called)
    with connected(scheduler_of(mode)):
        left = waited(attempt, attempt(list(units)), mode.wait)
    outcome.left += left
    if mode.only is None:
        outcome.notes += [left_note(units[number]) for number in left]


def _check_reach(called: Call) -> None:
    """Refuse a store that is in this process's memory: tasks are in others."""
    for one in called.given:
        if isinstance(one, Location) and (
            one.url.startswith("memory://") or type(one.store).__name__ == "MemoryStore"
        ):
            what = "other processes cannot reach a store in this one's memory"
            raise TaqError(problem(what, where=str(one), remedy="leave --scheduler out"))


def _done(do: Callable[[Unit], bool], unit: Unit) -> bool:
    """Do a unit; one that another process has taken over meanwhile is that one's."""
    try:
        return do(unit)
    except SupersededError as error:
        _log.warning("%s", error)
        return False


def waited(
    attempt: Callable[[Collection[int]], list[int]], left: list[int], seconds: float
) -> list[int]:
    """What is left once nothing more was finished or let go of for so many seconds."""
    if left and seconds:
        _log.warning("waiting for %s that other processes are working on", _units(len(left)))
    since, pause = monotonic(), _FIRST
    while left and (remaining := since + seconds - monotonic()) > 0:
        sleep(min(pause, remaining))
        before, left = left, attempt(left)
        if len(left) < len(before):
            since, pause = monotonic(), _FIRST
        else:
            pause = min(2 * pause, _LONGEST)
    return left


def _parts(numbers: list[int], count: int) -> list[list[int]]:
    size = -(-len(numbers) // count)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"

"""Units of a run, done one after another here or on a cluster; other processes take theirs.

A unit is whatever is claimed at once. Several processes form a queue: each takes what no other
holds, and at the end what others had and have let go of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, TypeVar

from taqstore.errors import SupersededError
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome

from .cluster import spread

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
    close: Callable[[], None] = lambda: None,
) -> None:
    """Do all units, and wait for those that other processes hold, as long as `Mode.wait` says.

    Parameters
    ----------
    units
        By number in the whole run, in the order they are done.
    do
        Does a unit; False where another process holds it.
    called
        The run itself, for tasks of a cluster, each of which does one of the units.
    left_note
        What is said of a unit that is left to another process.
    close
        Closes the flags of what tasks have written by now.
    """

    def attempt(numbers: Collection[int]) -> list[int]:
        if mode.scheduler is not None and numbers:
            return spread(called.run, numbers, mode=mode, outcome=outcome, close=close)
        return [number for number in numbers if not _done(do, units[number])]

    left = waited(attempt, attempt(list(units)), mode.wait)
    outcome.left += left
    if mode.only is None:
        outcome.notes += [left_note(units[number]) for number in left]


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


def _units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"

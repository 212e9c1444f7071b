"""Progress on stderr: a bar at a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Literal

from taqstore.cli.common import say
from taqstore.cli.talk import TALK
from taqstore.run.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn, Task, TaskID
    from rich.text import Text

Unit = Literal["bytes", "forwards", "linears"]
FIRST, LONGEST = 30.0, 600.0
"""Seconds to the first line where there is no terminal, and between two at most: they double."""

_WORDS_FROM, _BAR_FROM = 70, 100
"""Characters of a terminal that has room for the unit, and for a bar, beside what is done."""


@contextmanager
def progress_bar(text: str, *, unit: Unit) -> Iterator[Progress]:
    """What is done, how much of it, at what rate, and what time is left; nothing under --quiet.

    Parameters
    ----------
    text
        What is done until the first part is.
    """
    if TALK.quiet:
        yield SILENT
    elif sys.stderr.isatty():
        with _bar(unit) as bar:
            yield _Shown(bar, bar.add_task(text, total=None))
    else:
        yield Lines(unit)


class Lines:
    """Progress in lines of plain text, the more seldom the longer it takes.

    Parameters
    ----------
    unit
        What is counted.
    clock
        Tells seconds.
    """

    def __init__(self, unit: Unit, *, clock: Callable[[], float] = monotonic) -> None:
        self._unit, self._clock = unit, clock
        self._total, self._done, self._pause = 0, 0, FIRST
        self._started = clock()
        self._next = self._started + FIRST

    def start(self, total: int) -> None:
        """Count from nothing to a total; the rate is that from now on."""
        self._total, self._done, self._started = total, 0, self._clock()

    def advance(self, label: str, amount: int = 1) -> None:
        """Count on; say it where it is time."""
        self._done += amount
        now = self._clock()
        if now < self._next:
            return
        self._pause = min(LONGEST, 2 * self._pause)
        self._next = now + self._pause
        rate = self._done / max(now - self._started, 1e-9)
        words = [counted(self._done, self._total, self._unit), per_second(rate, self._unit)]
        if rate and self._total > self._done:
            words.append(f"{duration((self._total - self._done) / rate)} left")
        say(f"{label}: {', '.join(words)}")


def counted(done: float, total: float | None, unit: Unit) -> str:
    """How much of how much.

    >>> counted(12, 128, "forwards")
    '12 of 128 forwards'
    >>> counted(1_500_000, 2_000_000_000, "bytes")
    '1.5 MB of 2.0 GB'
    """
    if unit == "bytes":
        return f"{_size(done)} of {'?' if total is None else _size(total)}"
    return f"{int(done)} of {'?' if total is None else int(total)} {unit}"


def per_second(rate: float | None, unit: Unit) -> str:
    """A rate; of what takes longer than a second, how long each takes.

    >>> per_second(2.345, "forwards"), per_second(0.25, "forwards"), per_second(3e7, "bytes")
    ('2.3/s', '4.0 s each', '30.0 MB/s')
    """
    if not rate:
        return "-/s"
    if unit == "bytes":
        return f"{_size(rate)}/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as many as it takes.

    >>> duration(7.6), duration(754), duration(7200)
    ('8 s', '12:34 min', '2:00 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _size(count: float) -> str:
    from taqstore.place.sizes import format_bytes

    return format_bytes(int(count))


def _bar(unit: Unit) -> Bar:
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    return Bar(
        *_columns(unit, console.width),
        console=console,
        transient=True,
        expand=True,
    )


def _columns(unit: Unit, width: int) -> list[ProgressColumn]:
    """What is done, as far as there is room for it, and after it words that are never cut."""
    from rich import progress
    from rich.table import Column
    from rich.text import Text

    class Words(progress.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_words(task, unit, short=width < _WORDS_FROM), no_wrap=True)

    label = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    said = progress.TextColumn("{task.description}", markup=False, table_column=label)
    return [said, *([progress.BarColumn()] if width >= _BAR_FROM else []), Words()]


def _words(task: Task, unit: Unit, *, short: bool) -> str:
    if task.total is None:
        return duration(task.elapsed or 0)
    left = "" if task.time_remaining is None else f"  {duration(task.time_remaining)} left"
    rate = per_second(task.speed, unit)
    share = counted(task.completed, task.total, unit)
    if short:
        share = share.replace(" of ", "/").removesuffix(f" {unit}")
    return f"{share}  {rate}{left}"


class _Shown:
    """Progress shown by a bar."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def advance(self, label: str, amount: int = 1) -> None:
        self._bar.update(self._task, advance=amount, description=label)

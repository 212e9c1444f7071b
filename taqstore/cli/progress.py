"""Progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from taqstore.run.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn, TaskID

Unit = Literal["bytes", "forwards", "linears"]


@contextmanager
def progress_bar(text: str, *, unit: Unit) -> Iterator[Progress]:
    """A bar with ETA on stderr, told of what is counted; silent when that is no terminal.

    Parameters
    ----------
    text
        What is done until the first part is.
    """
    if not sys.stderr.isatty():
        yield SILENT
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(*_columns(unit), console=Console(stderr=True), transient=True) as bar:
        yield _Shown(bar, bar.add_task(text, total=None))


def _columns(unit: Unit) -> list[ProgressColumn]:
    from rich import progress

    counts: list[ProgressColumn] = [progress.MofNCompleteColumn(), progress.TimeElapsedColumn()]
    if unit == "bytes":
        counts = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    return [
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *counts,
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(),
    ]


class _Shown:
    """Progress shown by a bar."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def advance(self, label: str, amount: int = 1) -> None:
        self._bar.update(self._task, advance=amount, description=label)

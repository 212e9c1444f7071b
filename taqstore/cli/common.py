"""Talk, progress and the argument that most commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

store_argument = click.argument("store")


def say(text: str) -> None:
    """Talk: a line on stderr."""
    click.echo(text, err=True)


class Advance(Protocol):
    """Moves a progress bar on by `amount`, naming what was finished."""

    def __call__(self, label: str, amount: int) -> None:
        """Advance."""
        ...


@contextmanager
def byte_progress(total_text: str) -> Iterator[tuple[Any, Advance]]:
    """A progress bar over bytes with rate and ETA on stderr; silent when that is no terminal.

    Yields `(start, advance)`: call `start(total)` once, then `advance(label, amount)`.
    """
    if not sys.stderr.isatty():
        yield (lambda total: None), (lambda label, amount: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(total_text, total=None)
        yield (
            lambda total: bar.update(task, total=total),
            lambda label, amount: bar.update(task, advance=amount, description=label),
        )

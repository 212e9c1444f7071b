"""Options and small helpers that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click

store_argument = click.argument("store")
json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")


def print_json(document: Any) -> None:
    """One JSON document on stdout, floats in their shortest exact form."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned plain text on stdout: words left, numbers right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    for row in table:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _is_number(cell: str) -> bool:
    head = cell.split(" ")[0].rstrip("%")
    return head in ("", "-") or head.replace(".", "", 1).replace("-", "", 1).isdigit()


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

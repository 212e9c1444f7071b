"""Talk, progress and the argument that most commands share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from taqstore.errors import printable

if TYPE_CHECKING:
    import xarray as xr

store_argument = click.argument("store")


def say(text: str) -> None:
    """Talk: a line on stderr."""
    click.echo(printable(text), err=True)


def say_nonfinite(
    groups: Mapping[str, xr.Dataset], paths: Iterable[str] | None = None, *, where: str = ""
) -> None:
    """Talk of values that are no numbers in groups of statistics, a line for each group.

    `where` tells stores apart.

    Every command whose answer comes from statistics calls this, or hands on such notes.
    """
    from taqstore.kinds.nonfinite import notes

    for note in notes(groups, paths):
        say(f"note: {where}: {note}" if where else f"note: {note}")

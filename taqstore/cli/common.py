"""Talk, progress and the argument that most commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from taqstore.cli.completed import StoreAddress
from taqstore.cli.talk import TALK
from taqstore.cli.talk import detail as detail
from taqstore.errors import printable

if TYPE_CHECKING:
    import xarray as xr

store_argument = click.argument("store", type=StoreAddress())


def say(text: str) -> None:
    """Talk: a line on stderr, unless --quiet was asked for."""
    if not TALK.quiet:
        complain(text)


def complain(text: str) -> None:
    """A line on stderr, whatever was asked for: why the exit code is not 0."""
    click.echo(printable(text), err=True)


def is_given(name: str) -> bool:
    """Whether the running command was given a parameter, by its name in Python."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


class Renamed(click.Option):
    """An option that is also taken by its earlier spellings, which are not shown.

    Parameters
    ----------
    old
        The spellings, with their dashes.
    """

    def __init__(self, *args: Any, old: tuple[str, ...], **particulars: Any) -> None:
        super().__init__(*args, **particulars)
        self._old = old

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """As any option, under all spellings."""
        shown = self.opts
        self.opts = [*shown, *self._old]
        super().add_to_parser(parser, ctx)
        self.opts = shown


def renamed(word: str, name: str, *, old: str, **particulars: Any) -> Callable[[Any], Any]:
    """The decorator of an option that had another spelling."""
    return click.option(word, name, cls=Renamed, old=(old,), **particulars)


def say_nonfinite(
    groups: Mapping[str, xr.Dataset], paths: Iterable[str] | None = None, *, where: str = ""
) -> None:
    """Talk of values that are no numbers in groups of statistics, a line for each group.

    `where` tells stores apart.

    Every command whose answer comes from statistics calls this, or hands on such notes.
    """
    from taqstore.query.notes import nonfinite_notes

    for note in nonfinite_notes(groups, paths):
        say(f"note: {where}: {note}" if where else f"note: {note}")

"""`taqstore plot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from taqstore.cli import vocabulary
from taqstore.cli.common import say, store_argument
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.options import click_option, given_of
from taqstore.cli.output import output_option
from taqstore.cli.scheduler import computing, scheduler_option
from taqstore.cli.several import addresses, open_asked, with_others
from taqstore.cli.talk import Command, wide_option
from taqstore.cli.words import Word
from taqstore.errors import TaqError, problem
from taqstore.plot.figures import FIGURES, FORMATS, FigureKind
from taqstore.plot.options import OPTIONS

_FLAGS = {**{option.name: option.parameter for option in OPTIONS}, "other": "against"}
"""Options of figures and what the command calls them; others are for the library alone."""


def _kind_lines() -> str:
    """One line on every word, with the options it takes."""
    return "\n".join(f"  {word:13} {_line(row)}" for word, row in FIGURES.items())


def _line(row: FigureKind) -> str:
    offered = ", ".join(f"--{_FLAGS[name]}" for name in row.options if name in _FLAGS)
    return f"{row.doc} ({offered})" if offered else row.doc


_HELP = f"""Draw one KIND of figure from STORE, with a CSV of its numbers beside each picture.

\b
Kinds:
{_kind_lines()}

\b
Examples:
  taqstore plot trajectories run.zarr -o plots
  taqstore plot channelmap run.zarr -o plots --layer mm2.img --format svg
"""


def _priced(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        function = click_option(option)(function)
    return function


@click.command("plot", cls=Command, help=_HELP, no_args_is_help=True)
@click.argument("kind", type=Word(tuple(FIGURES)), metavar="KIND")
@store_argument
@with_others
@output_option(help="Folder.", required=True, only="folder")
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=Named(vocabulary.layers),
    help="Layer glob or name. Repeatable.",
)
@click.option(
    "--group",
    type=Named(vocabulary.groups),
    help="Group to draw [default: all sites of the source that can show it, post-GELU first].",
)
@_priced
@click.option(
    "--against",
    type=StoreAddress(),
    metavar="OTHER",
    help="Second store, where a kind compares two.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=Word(FORMATS),
    default=("png",),
    show_default=True,
    help="Kind of picture. Repeatable.",
)
@scheduler_option
@wide_option
def command(
    kind: str,
    store: str,
    output: Path,
    layers: tuple[str, ...],
    group: str | None,
    formats: tuple[str, ...],
    scheduler: str,
    **given: Any,
) -> None:
    """Draw one kind of figure; its help is made from the table of figures."""
    options = _options(kind, given)
    from taqstore.store.reader import open_store

    stores = [*addresses(store)]
    if "other" in options:
        stores.append(options["other"])
        options["other"] = open_store(options["other"])
    opened, chosen = open_asked(store), layers or None
    with computing(scheduler, *stores), _drawing(kind):
        from taqstore.plot.draw import draw

        written, notes = draw(
            kind,
            opened,
            output,
            group=group,
            layers=chosen,
            formats=formats,
            processes=True,
            **options,
        )
    for note in notes:
        say(f"note: {note}")
    for path in written:
        click.echo(str(path))


@contextmanager
def _drawing(kind: str) -> Iterator[None]:
    """Where a figure needs matplotlib and there is none, one line says so."""
    try:
        if FIGURES[kind].made != "site":  # of sites others may draw, before this process can
            FIGURES[kind].load()
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "taqstore":
            raise  # a bug of ours
        what = f"figures need {error.name or 'matplotlib'}, which cannot be imported"
        remedy = "pip install matplotlib; taqstore analyze prints the numbers"
        raise TaqError(problem(what, remedy=remedy)) from error


def _options(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, by their names in the library, if the kind takes them."""
    row = FIGURES[kind]
    values = {option.name: given_of(option, given) for option in OPTIONS}
    values["other"] = given["against"]
    for name, flag in _FLAGS.items():
        if values[name] is not None and name not in row.options:
            raise click.UsageError(f"plot {kind} takes no --{flag}")
        if values[name] is None and name in row.needs:
            raise click.UsageError(f"plot {kind} needs --{flag}")
    return {name: value for name, value in values.items() if value is not None}

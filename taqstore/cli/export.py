"""`taqstore export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from taqstore.cli.common import say, store_argument
from taqstore.cli.output import output_option, replace_option, replacing
from taqstore.export.documents.clips import CLIPS
from taqstore.export.formats import FORMATS, INCOMPLETE, MULTITIER, export, taking
from taqstore.export.tensor_names import NAMES

_TIERED = [name.removesuffix(MULTITIER) for name in FORMATS if name.endswith(MULTITIER)]
_LIST = "\n".join(f"  {name:<28} {row.doc}" for name, row in FORMATS.items())


@click.command(
    "export",
    help=f"""Write STORE's content in FORMAT.

\b
Formats:
{_LIST}

JSON documents are validated against their schema and appear whole or not at all.""",
)
@click.argument("format", type=click.Choice(list(FORMATS)), metavar="FORMAT")
@store_argument
@output_option(help="File or folder to write.", required=True)
@click.option(
    "--clip",
    type=click.Choice(CLIPS),
    help="Clip bounds of configs [default: absmax].",
)
@click.option(
    "--outliers", is_flag=True, help=f"Add outlier channels ({', '.join(taking('outliers'))})."
)
@click.option("--multitier", is_flag=True, help=f"The multi-tier schema ({', '.join(_TIERED)}).")
@click.option("--source", help="Group prefix to take statistics from, like pooled/timestep_stats.")
@click.option(
    "--names",
    type=click.Choice(list(NAMES)),
    help="Names of tensors: of linears, or of the weights of an SD3 checkpoint, which"
    f" quantizers look up ({', '.join(taking('names'))}) [default: taqstore].",
)
@click.option(
    "--no-shift",
    is_flag=True,
    help=f"Recompute input steps without shifts ({', '.join(taking('no_shift'))}).",
)
@click.option(
    "--allow-incomplete",
    is_flag=True,
    help="Leave out, by name, layers without a finite value at some step.",
)
@replace_option
def command(  # noqa: D103 - its help text is made above, from the table
    format: str,
    store: str,
    output: Path,
    clip: str | None,
    outliers: bool,
    multitier: bool,
    source: str | None,
    names: str | None,
    no_shift: bool,
    allow_incomplete: bool,
    force: bool,
) -> None:
    from taqstore.store.reader import open_store
    from taqstore.upkeep.info import format_bytes

    name = f"{format}{MULTITIER}" if multitier else format
    given = {"clip": clip, "outliers": outliers or None, "source": source}
    given |= {"names": names, "no_shift": no_shift or None, INCOMPLETE: allow_incomplete or None}
    options = {key: value for key, value in given.items() if value is not None}
    _check(name, multitier, options)
    opened = open_store(store, chunks=None, checksum=True)
    with replacing(output, force=force):
        summary = export(name, opened, output, force=force, **options)
    files = "" if summary.files == 1 else f" in {summary.files} files"
    say(f"wrote {summary.path}, {format_bytes(summary.bytes)}{files}")
    for note in summary.notes:
        say(f"note: {note}")


def _check(name: str, multitier: bool, options: Iterable[str]) -> None:
    if multitier and name not in FORMATS:
        raise click.UsageError(f"--multitier goes with {' and '.join(_TIERED)}")
    for option in options:
        if option not in FORMATS[name].options:
            raise click.UsageError(f"--{option.replace('_', '-')} does not go with {name}")

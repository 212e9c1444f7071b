"""`taqstore analyze NAME STORE`: a subcommand for every row of `analysis.ANALYSES`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from taqstore.analysis.shared.option import bundled
from taqstore.analysis.shared.row import Analysis
from taqstore.analysis.table import ANALYSES
from taqstore.cli.analysis import run, shared_options, weights_of_store
from taqstore.cli.common import say
from taqstore.cli.options import click_option, settled
from taqstore.cli.talk import Command, talk_options
from taqstore.cli.words import WordGroup


class _Analyses(WordGroup):
    """Subcommands made when asked for, from what the table then holds."""

    kind = "analysis"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(ANALYSES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List analyses with all that is said of them."""
        with formatter.section("Analyses"):
            rows = ((name, ANALYSES[name]) for name in self.list_commands(ctx))
            formatter.write_dl([(name, row.doc) for name, row in rows])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = ANALYSES.get(cmd_name)
        return None if row is None else _subcommand(cmd_name, row)


@click.group(
    "analyze",
    cls=_Analyses,
    params=talk_options(),
    subcommand_metavar="NAME STORE [OPTIONS]...",
)
def command() -> None:
    """Compute an analysis from STORE; nothing is run again.

    Works on observed and on pooled statistics, lazily. Print it, or write it with -o.

    \b
    Examples:
      taqstore analyze scales run.zarr --site mlp.fc2 --bits 4 --clip mse -o scales.csv
      taqstore analyze shifts run.zarr --momentum 0.5 --layer mm_00_img --limit 4
    """


def _subcommand(name: str, row: Analysis) -> click.Command:
    made: Any = partial(_analyze, name, row)
    for decorate in reversed((*shared_options(row), *map(click_option, row.options))):
        made = decorate(made)
    return click.command(name, cls=Command, help=row.doc)(made)


def _analyze(name: str, row: Analysis, **given: Any) -> None:
    from taqstore.store.reader import open_store

    values = settled(row.options, given, who=f"analyze {name}")
    for option in row.options:
        if option.type == "weights":
            asked = values.get(option.name)
            values[option.name] = (
                _weights_of_file(asked)
                if isinstance(asked, Path)
                else weights_of_store(open_store(given["store"]), asked)
            )
    run(name, given, bundled(row.options, row.bundles, values))


def _weights_of_file(path: Path) -> Any:
    from taqstore.files.weight_absmax import weight_absmax

    found = weight_absmax(path)
    for note in found.notes:
        say(f"note: {note}")
    return found.sites

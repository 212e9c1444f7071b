"""`taqstore report`."""

from __future__ import annotations

from pathlib import Path

import click

from taqstore.cli import vocabulary
from taqstore.cli.common import renamed, say, say_nonfinite, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.output import output_option, replace_option, replacing
from taqstore.cli.scheduler import computing, scheduler_option
from taqstore.cli.several import addresses, open_asked, with_others
from taqstore.cli.talk import Command


@click.command("report", cls=Command)
@store_argument
@with_others
@output_option(help="FILE.html to write.", required=True, only="file")
@click.option(
    "--source",
    type=Named(vocabulary.sources),
    help="Group prefix [default: first of those in the store].",
)
@click.option(
    "--bits",
    type=click.IntRange(2, 16),
    multiple=True,
    default=(8, 6, 4),
    show_default=True,
    help="A bit width to price and to choose from. Repeatable.",
)
@renamed(
    "--average",
    "budget",
    old="--budget",
    type=click.FloatRange(2, 16),
    help="Bits per value to recommend on average [default: halfway below the middle width].",
)
@renamed(
    "--time-groups",
    "groups",
    old="--groups",
    type=click.IntRange(min=1),
    help="Number of time groups [default: the least that costs at most 5 % more].",
)
@click.option(
    "--explorer",
    metavar="URL",
    help="Address that taqstore serve printed: figures and linears link into it.",
)
@replace_option
@scheduler_option
def command(
    store: str,
    output: Path,
    source: str | None,
    bits: tuple[int, ...],
    budget: float | None,
    groups: int | None,
    explorer: str | None,
    force: bool,
    scheduler: str,
) -> None:
    """Write one self-contained HTML page about STORE: findings, costs, recommendations.

    What was calibrated; whether there is asymmetry, drift over the steps and outlier channels, each
    with a figure and a verdict by a stated threshold; the worst layers; what configurations cost in
    expected error; which time groups and bit widths to choose.

    \b
    Examples:
      taqstore report store.zarr -o report.html
      taqstore report store.zarr -o fewer.html --bits 8 --bits 4 --average 5 --time-groups 4
      taqstore report store.zarr -o linked.html --explorer http://127.0.0.1:8765/
    """
    from taqstore.files.staged import whole_file
    from taqstore.files.targets import check_suffix
    from taqstore.query.sites import choose_source, paths_of
    from taqstore.report import build

    if output.suffix:
        check_suffix(output, (".html", ".htm"))
    opened = open_asked(store)
    notes: list[str] = []
    with (
        replacing(output, force=force),
        computing(scheduler, *addresses(store)),
        whole_file(output, force=force) as fresh,
    ):
        page = build(
            opened,
            source=source,
            bits=bits,
            budget=budget,
            groups=groups,
            explorer=explorer,
            notes=notes,
            processes=True,
        )
        fresh.write_text(page, encoding="utf-8", newline="\n")
    for note in notes:
        say(f"note: {note}")
    say_nonfinite(opened, paths_of(opened, choose_source(opened, source)))
    click.echo(str(output))

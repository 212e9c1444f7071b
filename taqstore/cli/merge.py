"""`taqstore merge`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from taqstore.cli.common import byte_progress, say
from taqstore.cli.output import json_option, print_json, print_rows


@click.command("merge")
@click.argument("first")
@click.argument("second")
@click.argument("out")
@click.option("--group", "groups", multiple=True, help="Merge only this group. Repeatable.")
@click.option("--renumber", is_flag=True, help="Number SECOND's images after FIRST's.")
@click.option(
    "--duplicates",
    type=click.Choice(["refuse", "skip", "keep"]),
    default="refuse",
    show_default=True,
    help="Images of SECOND that FIRST has too.",
)
@json_option
def command(first: str, second: str, out: str, as_json: bool, **options: Any) -> None:
    """Concatenate stores FIRST and SECOND along images and batches into the new store OUT.

    Both must be of one model and one configuration. Values are copied without loss, provenance is
    carried over; run the same command again to go on after an interruption.

    \b
    Examples:
      taqstore merge monday.zarr tuesday.zarr both.zarr --renumber
    """
    from taqstore.upkeep.merge import Progress, merge

    try:
        with byte_progress("copying") as (start, advance):
            merged = merge(first, second, out, progress=Progress(start, advance), **options)
    except KeyboardInterrupt:
        say("taqstore: stopped; what was copied is kept. Run the same command again to go on.")
        sys.exit(130)
    if as_json:
        print_json(asdict(merged))
    else:
        rows = [(g, str(n), str(merged.skipped[g])) for g, n in merged.written.items()]
        print_rows(("group", "copied", "skipped"), rows)
    for note in merged.notes:
        say(f"note: {note}")

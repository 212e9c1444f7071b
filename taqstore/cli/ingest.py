"""`taqstore ingest`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib import import_module
from typing import Any

import click

from taqstore.cli import INGEST_PIPELINE
from taqstore.cli.common import byte_progress, say
from taqstore.cli.output import json_option, print_json, print_rows
from taqstore.pipelines.sources.table import SOURCES

_LIST = "\n".join(f"  {word:<12} {row.doc}" for word, row in SOURCES.items())


@click.command(
    "ingest",
    help=f"""Bring SOURCE... into STORE.

A SOURCE is recognised by its content: a run's folder, any of its parts, or a file. Folders may have
been moved. Good items are stored and bad ones listed (exit code 1).

\b
Sources, by the word that --only takes:
{_LIST}

\b
Examples:
  taqstore ingest calibration_data run.zarr
  taqstore ingest calibration_data run.zarr --only activations --resume""",
)
@click.argument("source", nargs=-1, required=True, type=click.Path())
@click.argument("store")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(SOURCES)),
    help="Take only this source. Repeatable.",
)
@click.option("--resume", is_flag=True, help="Skip what is complete, write the rest.")
@click.option("--force", is_flag=True, help="Replace the groups these sources fill.")
@click.option("--strict", is_flag=True, help="Stop at the first bad item.")
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that read and write.")
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False),
    help="Text or CSV file with the prompts of a Phase 1 file.",
)
@json_option
def command(  # noqa: D103 - its help text is made above, from the table
    source: tuple[str, ...], store: str, as_json: bool, **options: Any
) -> None:
    ingest = import_module(INGEST_PIPELINE).ingest
    if options["resume"] and options["force"]:
        raise click.UsageError("--resume and --force exclude each other")
    try:
        with byte_progress("reading") as (start, advance):
            summary = ingest(source, store, on_start=start, on_progress=advance, **options)
    except KeyboardInterrupt:
        say("taqstore: stopped; what was complete is kept. Go on with:")
        say(f"  taqstore ingest {' '.join(source)} {store} --resume")
        sys.exit(130)
    if as_json:
        print_json({**asdict(summary), "groups": [asdict(g) for g in summary.groups.values()]})
    else:
        _print_summary(summary)
    for line in summary.problems:
        say(f"refused: {line}")
    if summary.problems:
        say("Mend these and run the same command with --resume; everything else is stored.")
        sys.exit(1)


def _print_summary(summary: Any) -> None:
    from taqstore.upkeep.info import format_bytes

    rows = [
        (g.group, str(g.written), str(g.skipped), str(g.refused), format_bytes(g.bytes_out))
        for g in summary.groups.values()
    ]
    print_rows(("group", "written", "skipped", "refused", "stored"), rows)
    total = sum(g.bytes_out for g in summary.groups.values())
    say(f"{format_bytes(summary.bytes_in)} in, {format_bytes(total)} out, {summary.seconds:.1f} s")
    for line in summary.notes:
        say(f"note: {line}")

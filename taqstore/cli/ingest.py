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

KINDS = ("latents", "blocks", "activations", "samples", "postgelu", "schedule")


@click.command("ingest")
@click.argument("source", nargs=-1, required=True, type=click.Path())
@click.argument("store")
@click.option(
    "--only", multiple=True, type=click.Choice(KINDS), help="Take only this kind. Repeatable."
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
def command(source: tuple[str, ...], store: str, as_json: bool, **options: Any) -> None:
    """Bring SOURCE... into STORE.

    A SOURCE is recognised by its content: a calibration_data/ folder or any of its parts (samples
    with manifest.json, adaround_cache/, activations/), DiT_cali_data.npz,
    activation_stats_postgelu.npz, a polynomial or LUT schedule. Folders may have been moved. Good
    items are stored and bad ones listed (exit code 1).

    \b
    Examples:
      taqstore ingest calibration_data run.zarr
      taqstore ingest calibration_data run.zarr --only activations --resume
    """
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

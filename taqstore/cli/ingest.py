"""`taqstore ingest`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from taqstore.cli import INGEST_PIPELINE, SOURCES_TABLE, vocabulary
from taqstore.cli.common import complain, say
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand, resume_option
from taqstore.cli.model_options import known_set
from taqstore.cli.outcome import print_groups, say_notes
from taqstore.cli.output import Source, json_option, print_json
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of, sharing_options
from taqstore.cli.words import Word
from taqstore.run.outcome import Outcome

SOURCES = import_module(SOURCES_TABLE).SOURCES
_LIST = "\n".join(f"  {word:<12} {row.doc}" for word, row in SOURCES.items())


@click.command(
    "ingest",
    cls=LongCommand,
    help=f"""Bring SOURCE... into STORE.

A SOURCE is recognised by its content: a run's folder, any of its parts, or a file. Folders may have
been moved. Good items are stored and bad ones listed (exit code 1).

\b
Sources, by the word that --only takes:
{_LIST}

\b
Examples:
  taqstore ingest calibration_data run.zarr --dry-run
  taqstore ingest calibration_data run.zarr
  taqstore ingest calibration_data run.zarr --only activations --resume""",
)
@click.argument("source", nargs=-1, required=True, type=click.Path())
@click.argument("store", type=StoreAddress())
@click.option(
    "--only",
    multiple=True,
    type=Word(list(SOURCES)),
    help="Take only this source. Repeatable.",
)
@resume_option
@click.option("--force", is_flag=True, help="Replace the groups these sources fill.")
@click.option("--strict", is_flag=True, help="Stop at the first bad item.")
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that read and write.")
@click.option(
    "--prompts",
    type=Source(),
    help="Text or CSV file with the prompts of a Phase 1 file.",
)
@click.option(
    "--set",
    type=Named(vocabulary.weight_sets),
    metavar="NAME",
    callback=known_set,
    help="Weight set that quantized weights become [default: adaround].",
)
@sharing_options
@dry_run_option
@json_option
def command(  # noqa: D103 - its help text is made above, from the table
    source: tuple[str, ...],
    store: str,
    as_json: bool,
    **options: Any,
) -> None:
    ingest = import_module(INGEST_PIPELINE).ingest
    with progress_bar("reading", unit="bytes") as progress:
        mode = mode_of(options, progress)
        outcome = ingest(source, store, mode=mode, **options)
    if outcome.plan is not None:
        print_plan(outcome, as_json=as_json, problems=outcome.problems)
    elif as_json:
        print_json(_document(outcome))
    else:
        _print_outcome(outcome)
    for line in outcome.problems:
        complain(f"refused: {line}")
    if outcome.problems:
        if not mode.dry_run:
            again = "Mend these and run the same command with --resume"
            complain(f"{again}; everything else is stored.")
        sys.exit(1)


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "groups": [{"group": path, **vars(counts)} for path, counts in outcome.groups.items()],
        "problems": outcome.problems,
        "notes": outcome.notes,
        "bytes_in": outcome.bytes_in,
        "seconds": outcome.seconds,
    }


def _print_outcome(outcome: Outcome) -> None:
    from taqstore.place.sizes import format_bytes

    counted = {name: name for name in ("written", "skipped", "refused")}
    print_groups(outcome, {**counted, "stored": "bytes_out"})
    read, stored = format_bytes(outcome.bytes_in), format_bytes(outcome.bytes_out)
    say(f"{read} in, {stored} out, {outcome.seconds:.1f} s")
    say_notes(outcome)

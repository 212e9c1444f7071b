"""`taqstore merge`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from taqstore.cli import vocabulary
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.long_command import LongCommand
from taqstore.cli.outcome import print_groups, say_notes
from taqstore.cli.output import json_option, print_json
from taqstore.cli.progress import progress_bar
from taqstore.cli.scheduler import dealing, in_process, scheduler_option
from taqstore.cli.words import Word
from taqstore.run.outcome import Outcome


@click.command("merge", cls=LongCommand)
@click.argument("stores", type=StoreAddress(), nargs=-1, required=True, metavar="STORE STORE...")
@click.argument("out", type=StoreAddress())
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=Named(vocabulary.groups, store="stores"),
    help="Merge only this group. Repeatable.",
)
@click.option("--renumber", is_flag=True, help="Number each store's images after those before it.")
@click.option(
    "--duplicates",
    type=Word(["refuse", "skip", "keep"]),
    default="refuse",
    show_default=True,
    help="Images that an earlier store has too.",
)
@scheduler_option
@json_option
def command(
    stores: tuple[str, ...], out: str, scheduler: str, as_json: bool, **options: Any
) -> None:
    """Concatenate every STORE along images and batches into the new store OUT.

    All must be of one model and one configuration. Files are copied as they are, provenance is
    carried over; run the same command again to go on after an interruption.

    Sensitivities, scores and trajectories of judged images are united: what two have is one, and
    must be the same; of copies of one store, --duplicates skip leaves the rest out of the later.

    \b
    Examples:
      taqstore merge monday.zarr tuesday.zarr both.zarr --renumber
      taqstore merge monday.zarr tuesday.zarr wednesday.zarr week.zarr --renumber
    """
    from taqstore.upkeep.merge import merge

    if len(stores) < 2:
        raise click.UsageError("merge takes two stores or more, then the new one")

    with ExitStack() as stack:
        each = (
            None if in_process(scheduler) else stack.enter_context(dealing(scheduler, *stores, out))
        )
        progress = stack.enter_context(progress_bar("copying", unit="bytes"))
        outcome = merge(*stores, out, progress=progress, each=each, **options)
    if as_json:
        print_json(_document(outcome))
    else:
        print_groups(outcome, {"copied": "written", "skipped": "skipped"})
    say_notes(outcome)


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "written": {path: counts.written for path, counts in outcome.groups.items()},
        "skipped": {path: counts.skipped for path, counts in outcome.groups.items()},
        "bytes": outcome.bytes_out,
        "notes": outcome.notes,
    }

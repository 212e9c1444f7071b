"""What `taqstore pull` and `taqstore push` share: all but the word."""

from __future__ import annotations

from typing import Any, Literal

import click

from taqstore.cli import vocabulary
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand
from taqstore.cli.outcome import print_outcome
from taqstore.cli.output import json_option
from taqstore.cli.progress import progress_bar

_HELP = """Bring what is chosen of the store SOURCE to the address TARGET.

    Without a choice, all of it. Files that stay whole are copied as they are; each is compared with
    its record before its item is flagged there. Run the same command again to go on after an
    interruption: what is there is skipped, images that are not are added.

    \b
    Examples:
      taqstore {word} {source} {target} --group latents --group activations
      taqstore {word} run.zarr part.zarr --site mlp.fc2 --step 0:50:5
    """
_ENDS = {
    "pull": ("s3://bucket/run.zarr", "here.zarr"),
    "push": ("run.zarr", "s3://bucket/run.zarr"),
}


def make_command(word: Literal["pull", "push"]) -> click.Command:
    """The command of that name."""

    @click.argument("store", metavar="SOURCE", type=StoreAddress())
    @click.argument("target", type=StoreAddress())
    @click.option(
        "--group",
        "groups",
        multiple=True,
        type=Named(vocabulary.groups),
        help="A group, a glob over them, or what they begin with (activations). Repeatable.",
    )
    @click.option(
        "--site",
        "sites",
        multiple=True,
        type=Named(vocabulary.every_site),
        help="Groups of this site alone. Repeatable.",
    )
    @click.option(
        "--layer",
        type=Named(vocabulary.layers, commas=True),
        help="Glob over layers (mm*.img), or any spelling of one.",
    )
    @click.option("--step", help="Step index, or A:B:S as Python's range (B left out).")
    @click.option(
        "--block",
        type=Named(vocabulary.blocks, commas=True),
        help="Block (mm3, 3), glob, or A:B on block streams.",
    )
    @click.option("--image", help="Image id, or A:B:S.")
    @dry_run_option
    @json_option
    def command(store: str, target: str, as_json: bool, dry_run: bool, **chosen: Any) -> None:
        from taqstore.transfer.choice import Choice
        from taqstore.transfer.pull import pull

        with progress_bar("copying", unit="bytes") as progress:
            outcome = pull(
                store,
                target,
                choice=Choice(**chosen),
                command=word,
                dry_run=dry_run,
                progress=progress,
            )
        if outcome.plan is not None:
            print_plan(outcome, as_json=as_json)
        else:
            print_outcome(outcome, as_json=as_json)

    start, end = _ENDS[word]
    text = _HELP.format(word=word, source=start, target=end)
    return click.command(word, cls=LongCommand, help=text)(command)

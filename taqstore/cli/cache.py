"""`taqstore cache`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from taqstore.cli import CACHE_PIPELINE, vocabulary
from taqstore.cli.common import say
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import print_run
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import check_draw, parse_names, rerun_options
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of


@click.command("cache", cls=LongCommand)
@click.option(
    "--blocks",
    "chosen",
    type=Named(vocabulary.blocks, commas=True),
    callback=parse_names,
    help="Blocks to keep, like mm0,mm5 [default: all].",
)
@rerun_options(stride=5)
def command(store: str, as_json: bool, **options: Any) -> None:
    """Run the latents of STORE through their model and keep the residual streams in float16.

    Of a Phase 1 file the samples are run, each at its own timestep.

    \b
    Examples:
      taqstore cache run.zarr --stride 5
      taqstore cache run.zarr --images 0-7 --blocks mm0,mm1 --resume
    """
    check_draw(options)
    pipeline = import_module(CACHE_PIPELINE)
    with progress_bar("loading the model", unit="forwards") as progress:
        outcome = pipeline.cache(
            store,
            on_space=_say_space,
            mode=mode_of(options, progress),
            **options,
        )
    print_run(outcome, as_json=as_json)


def _say_space(space: Any) -> None:
    from taqstore.place.sizes import format_bytes

    free = "unknown" if space.free is None else format_bytes(space.free)
    say(f"will write {format_bytes(space.needed)} ({space.needed} bytes), free: {free}")

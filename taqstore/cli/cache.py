"""`taqstore cache`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from taqstore.cli import CACHE_PIPELINE, vocabulary
from taqstore.cli.cache_plan import (
    optional_store,
    plan_options,
    planned_model,
    print_cache_plan,
    taken_out,
)
from taqstore.cli.common import is_given, say
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import print_run
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import check_draw, parse_names, rerun_options
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of

_STRIDE = 5
_OF_RUNS = (
    "images",
    "num_samples",
    "seed",
    "local_ckpt",
    "resume",
    "force",
    "shard",
    "wait",
    "scheduler",
    "dry_run",
)


@click.command("cache", cls=LongCommand)
@click.option(
    "--blocks",
    "chosen",
    type=Named(vocabulary.blocks, commas=True),
    callback=parse_names,
    help="Blocks to keep, like mm0,mm5 [default: all].",
)
@plan_options
@rerun_options(stride=_STRIDE, store=optional_store, model=planned_model)
def command(store: str | None, as_json: bool, **options: Any) -> None:
    """Run the latents of STORE through their model and keep the residual streams in float16.

    Of a Phase 1 file the samples are run, each at its own timestep.

    --plan says what this would take of any model: bytes, objects, and the requests of an object
    store, for the whole cache and for what adaround --rolling keeps at once instead.

    \b
    Examples:
      taqstore cache run.zarr --stride 5
      taqstore cache run.zarr --images 0-7 --blocks mm0,mm1 --resume
      taqstore cache --plan --model sd3-medium --num-images 1000 --steps 50 --stride 1
    """
    asked = taken_out(options)
    if asked["plan"]:
        _plan(store, asked, options, as_json=as_json)
        return
    if store is None:
        raise click.UsageError("Missing argument 'STORE'.")
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


def _plan(
    store: str | None, asked: dict[str, Any], options: dict[str, Any], *, as_json: bool
) -> None:
    if store is not None:
        raise click.UsageError("--plan needs no STORE: --dry-run says what a store would take")
    given = [name for name in _OF_RUNS if is_given(name)]
    if given:
        spelled = given[0].replace("_", "-")
        raise click.UsageError(f"--{spelled} is for running: --plan runs nothing")
    print_cache_plan(
        asked,
        model=options["model"],
        chosen=options["chosen"],
        stride=options["stride"] or _STRIDE,
        as_json=as_json,
    )


def _say_space(space: Any) -> None:
    from taqstore.place.sizes import format_bytes

    free = "unknown" if space.free is None else format_bytes(space.free)
    say(f"will write {format_bytes(space.needed)} ({space.needed} bytes), free: {free}")

"""`taqstore collect`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from taqstore.analysis.ranges.rules import RULES
from taqstore.cli import COLLECT_PIPELINE, vocabulary
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import print_run
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import check_draw, parse_names, rerun_options
from taqstore.cli.progress import progress_bar
from taqstore.cli.second_moment_options import asked_of, say_space, second_moment_options
from taqstore.cli.sharing import mode_of
from taqstore.cli.words import Word


@click.command("collect", cls=LongCommand)
@click.option(
    "--sites",
    type=Named(vocabulary.every_site, commas=True),
    callback=parse_names,
    help="Sites, like mlp.fc2,adaln.linear [default: all of the model; resumed, of the store].",
)
@click.option(
    "--histogram-bits",
    type=click.IntRange(0, 10),
    default=5,
    show_default=True,
    help="Mantissa bits of the histograms; 10 is exact for float16.",
)
@click.option(
    "--per-channel-histogram",
    "per_channel",
    type=Named(vocabulary.every_site, commas=True),
    callback=parse_names,
    help="Sites that also get a histogram of every channel, like mlp.fc2.",
)
@click.option(
    "--images-per-batch",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Images merged into one batch; of samples, how many at every step at least.",
)
@click.option(
    "--until-enough",
    type=click.FloatRange(0, min_open=True),
    metavar="MOVE",
    help="Stop where 4 times the images would move clip bounds by less, like 0.02 for 2 %.",
)
@click.option(
    "--enough-clip",
    type=Word(sorted(RULES)),
    help="Rule of these clip bounds [default: percentile].",
)
@second_moment_options
@rerun_options(stride=2)
def command(store: str, as_json: bool, **options: Any) -> None:
    """Run the latents of STORE through their model and keep statistics of every linear's input.

    All rows and tokens are seen, nothing is sampled and nothing clipped. Of a Phase 1 file the
    samples are run: each timestep is a step, a batch has samples of every one.

    --second-moment keeps what GPTQ makes weights of. With --resume, a store that has statistics
    gets it alone.

    --until-enough looks after 8, 12, 16, 24, ... batches, as analyze enough does, and takes no more
    where they are enough; with --resume, and without it, the others can be added.

    \b
    Examples:
      taqstore collect run.zarr
      taqstore collect run.zarr --sites mlp.fc2 --stride 1 --histogram-bits 10
      taqstore collect run.zarr --second-moment 64 --resume
      taqstore collect run.zarr --until-enough 0.02
      taqstore collect run.zarr --resume --second-moment full --dry-run
      taqstore collect phase1.zarr --model sd3-medium --num-samples 512
    """
    check_draw(options)
    pipeline = import_module(COLLECT_PIPELINE)
    tolerance, clip = options.pop("until_enough"), options.pop("enough_clip")
    if clip is not None and tolerance is None:
        raise click.UsageError("--enough-clip goes with --until-enough: give both")
    chosen = {} if clip is None else {"clip": clip}
    until = None if tolerance is None else pipeline.UntilEnough(tolerance, **chosen)
    moments = asked_of(options, pipeline.SecondMoments)
    with progress_bar("loading the model", unit="forwards") as progress:
        outcome = pipeline.collect(
            store,
            second_moments=moments,
            until_enough=until,
            on_space=say_space,
            mode=mode_of(options, progress),
            **options,
        )
    print_run(outcome, as_json=as_json)

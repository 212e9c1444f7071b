"""`taqstore adaround`."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from taqstore.analysis.ranges.rules import RULES
from taqstore.asked import MAX_SEED
from taqstore.cli import ADAROUND_PIPELINE, vocabulary
from taqstore.cli.common import is_given, renamed, say, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand, force_option, resume_option
from taqstore.cli.model_options import (
    check_draw,
    images_option,
    known_set,
    local_ckpt_option,
    model_option,
    num_samples_option,
    parse_names,
    set_option,
    stride_option,
    weight_group_size_option,
)
from taqstore.cli.outcome import groups_document, say_notes
from taqstore.cli.output import json_option, print_json, print_rows
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of, sharing_options
from taqstore.cli.staging import staging_option
from taqstore.cli.words import Word

if TYPE_CHECKING:
    from taqstore.store.reader import Store

_TIME_GROUPS = 4


@click.command("adaround", cls=LongCommand)
@store_argument
@click.option(
    "--blocks",
    "chosen",
    type=Named(vocabulary.blocks, commas=True),
    callback=parse_names,
    help="Blocks, like mm0,mm5 [default: all cached].",
)
@renamed(
    "--weight-bits",
    "bits",
    old="--bits",
    type=click.IntRange(2, 8),
    default=4,
    show_default=True,
    help="Of weights.",
)
@weight_group_size_option
@renamed(
    "--weight-clip",
    "clip",
    old="--clip",
    type=Word(["absmax", "mse"]),
    default="absmax",
    show_default=True,
    help="Rule of the weight steps.",
)
@click.option(
    "--activation-bits",
    type=click.IntRange(0, 16),
    default=8,
    show_default=True,
    help="Of activations; 0: not quantized.",
)
@click.option(
    "--rule",
    type=Word(["baseline", "timed"]),
    default="baseline",
    show_default=True,
    help="One activation step per linear, or one per linear and group of steps.",
)
@renamed(
    "--time-groups",
    "groups",
    old="--groups",
    type=click.IntRange(2),
    help="Groups of steps, with --rule timed [default: 4, or all steps].",
)
@click.option(
    "--activation-clip",
    type=Word(tuple(RULES)),
    default="absmax",
    show_default=True,
    help="Rule of the first activation steps; shifted sites have absmax.",
)
@renamed(
    "--shifted-sites",
    "shifted",
    type=Named(vocabulary.sites_of_blocks, commas=True),
    old="--shift",
    callback=lambda ctx, param, value: parse_names(ctx, param, value) if value else (),
    default="mlp.fc2",
    show_default=True,
    help="Sites whose channels are shifted first; '' for none.",
)
@click.option(
    "--iterations", type=click.IntRange(1), default=20_000, show_default=True, help="Minibatches."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Samples of a minibatch, both guidance rows each [default: 32, or all there are].",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Of the rounding variables; Adam.",
)
@click.option(
    "--step-rate",
    type=click.FloatRange(0),
    default=4e-5,
    show_default=True,
    help="Of activation steps, relative; Adam.",
)
@click.option(
    "--rounding-weight",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="Weight of the rounding term.",
)
@click.option(
    "--qdrop",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of activations left as they are.",
)
@click.option(
    "--sigma-power",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Samples count as sigma ** POWER.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Stop after so many fiftieths without improvement, once settled; 0: never.",
)
@click.option("--prefix", is_flag=True, help="Inputs from the quantized blocks before, in order.")
@click.option(
    "--rolling",
    is_flag=True,
    help="Compute each block's samples when its turn comes, from latents; two boundaries are kept.",
)
@images_option
@num_samples_option
@click.option(
    "--sample-seed",
    type=click.IntRange(0, MAX_SEED),
    help="Of the draw of --num-samples [default: 0].",
)
@stride_option(latents=5)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Of the order of samples, and QDrop.",
)
@click.option(
    "--start",
    type=Named(vocabulary.weight_sets),
    metavar="SET",
    callback=known_set,
    help="Weight set to begin from, and whose grids to keep, like gptq [default: the weights].",
)
@set_option("adaround")
@model_option
@local_ckpt_option
@resume_option
@force_option
@sharing_options
@staging_option
@dry_run_option
@json_option
def command(store: str, as_json: bool, **options: Any) -> None:
    """Round the weights of STORE's model block by block, so that cached outputs change least.

    Prints errors of blocks: rtn rounds to nearest with steps from the absmax, clipped with steps of
    least squared error; ratio is against the one whose steps AdaRound had, which is named.

    Writes integer weights, steps and rounding variables to weights/adaround/<site> and the errors
    of each block to reconstruction, beside those of rounding to nearest: with float inputs (weights
    alone), and with inputs quantized as learning began (first) and as it ended (learned), each the
    same for all. --set NAME writes another set, and touches no other. Stopped, it goes on with
    --resume inside a block; several processes share the blocks out.

    --rolling needs no cached blocks: latents (or samples) go through the model block by block, and
    what a block is done with is dropped. The disk holds two boundaries of each stream at most, and
    the result is the same to the bit; --images, --stride and --num-samples choose as for cache.

    --start SET begins from the integers of a set and keeps its grids: each weight stays, or goes
    one step towards what it was. What began is then in the table, as start.

    \b
    Examples:
      taqstore adaround run.zarr
      taqstore adaround run.zarr --rule timed --activation-bits 4 --activation-clip mse \\
          --shifted-sites ''
      taqstore adaround run.zarr --blocks mm0 --iterations 1000 --learning-rate 0.01
    """
    _check_unused(options)
    _check_start(options)
    _check_rolling(options)
    from taqstore.store.reader import open_store

    pipeline = import_module(ADAROUND_PIPELINE)
    settings = _settings(pipeline, options)
    opened = open_store(store)
    plan = _plan(pipeline, options, opened)
    with progress_bar("loading the model", unit="forwards") as progress:
        outcome = pipeline.adaround(
            opened,
            settings=settings,
            plan=plan,
            mode=mode_of(options, progress),
            rolling=_rolling(pipeline, options),
            **{name: options[name] for name in _OF_RUN},
        )
    if outcome.plan is not None:
        print_plan(outcome, as_json=as_json)
        return
    rows = pipeline.block_errors(opened, chosen=options["chosen"], set=options["set"])
    _print(outcome, rows, as_json=as_json)


_OF_RUN = ("chosen", "prefix", "set", "start", "model", "local_ckpt")
_OF_ACTIVATIONS = ("rule", "groups", "activation_clip", "shifted", "step_rate", "qdrop")


def _check_unused(options: dict[str, Any]) -> None:
    """Refuse options of activations where these are not quantized."""
    given = [name for name in _OF_ACTIVATIONS if is_given(name)]
    if not options["activation_bits"] and given:
        spelled = {p.name: p.opts[0] for p in click.get_current_context().command.params}
        what = f"{spelled[given[0]]} is for quantized activations: --activation-bits is 0"
        raise click.UsageError(what)


_OF_GRIDS = ("bits", "group_size", "clip")


def _check_start(options: dict[str, Any]) -> None:
    """Refuse options of grids where these are those of a set."""
    given = [name for name in _OF_GRIDS if is_given(name)]
    if options["start"] is not None and given:
        spelled = {p.name: p.opts[0] for p in click.get_current_context().command.params}
        what = f"{spelled[given[0]]} is for grids of AdaRound's own: --start keeps those of its set"
        raise click.UsageError(what)


_OF_ROLLING = ("images", "num_samples", "sample_seed", "stride")


def _check_rolling(options: dict[str, Any]) -> None:
    """Refuse options of what is run where cached blocks are, and those that contradict."""
    given = [name for name in _OF_ROLLING if options[name] is not None]
    if given and not options["rolling"]:
        spelled = f"--{given[0].replace('_', '-')}"
        raise click.UsageError(f"{spelled} is for --rolling: cached blocks are what they are")
    check_draw({**options, "seed": options["sample_seed"]}, seed="--sample-seed")


def _rolling(pipeline: ModuleType, options: dict[str, Any]) -> Any:
    """What is run in the place of cached blocks; None: nothing is."""
    if not options["rolling"]:
        return None
    images, count, seed, stride = (options[name] for name in _OF_ROLLING)
    return pipeline.RollingInputs(images, stride, count, seed)


def _settings(pipeline: ModuleType, options: dict[str, Any]) -> Any:
    names = {field.name for field in fields(pipeline.Settings)} & options.keys()
    return pipeline.Settings(**{name: options[name] for name in names})


def _plan(pipeline: ModuleType, options: dict[str, Any], store: Store) -> Any:
    rule, count = options["rule"], options["groups"]
    if count is None:
        count = _fitting_groups(store) if rule == "timed" else 1
    return pipeline.ActivationPlan(
        rule=rule,
        groups=count,
        clip=options["activation_clip"],
        shifted=options["shifted"],
    )


def _fitting_groups(store: Store) -> int:
    """Groups of steps unless told otherwise: no more than there are steps, which is said."""
    from taqstore.query.sites import paths_of

    steps = min((store[path].sizes["step"] for path in paths_of(store, "activations")), default=0)
    if not 1 < steps < _TIME_GROUPS:
        return _TIME_GROUPS
    say(
        f"note: {steps} groups of steps, one for each that was collected; --time-groups takes fewer"
    )
    return int(steps)


def _print(outcome: Any, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Errors of the blocks on stdout; where AdaRound lost, and notes, on stderr."""
    if as_json:
        groups = groups_document(outcome)
        print_json({"groups": groups, "blocks": rows, "notes": outcome.notes})
    else:
        print_rows(tuple(rows[0]) if rows else ("block",), [_cells(row) for row in rows])
    # Against rounding to nearest on the same grid: with the weight steps that AdaRound had.
    from taqstore.kinds.weights import METHODS

    for row in rows:
        ratio, against = row[f"adaround/{row['against']}"], row["against"]
        if ratio > 1 or (ratio == 1 and against in METHODS):
            where = f"{row['block']} {row['stream']}, {row['inputs']} inputs"
            say(f"{where}: AdaRound lost to {against} by {ratio - 1:.1%}")
    say_notes(outcome)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())

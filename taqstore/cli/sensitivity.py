"""`taqstore sensitivity`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.cli import SENSITIVITY_PIPELINE, vocabulary
from taqstore.cli.common import say_nonfinite, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand, force_option, resume_option
from taqstore.cli.model_options import local_ckpt_option, model_option, parse_names
from taqstore.cli.outcome import groups_document, say_notes
from taqstore.cli.output import Source, json_option, print_json, print_rows
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of, sharing_options
from taqstore.cli.words import Word


@click.command("sensitivity", cls=LongCommand)
@store_argument
@click.option(
    "--unit",
    type=Word(["linear", "block", "site", "step"]),
    default="linear",
    show_default=True,
    help="What is quantized at a time; at a step, the inputs of all linears.",
)
@click.option(
    "--format",
    "formats",
    type=Named(vocabulary.formats),
    metavar="NAME",
    multiple=True,
    help="How: rtn-w4, mlx-w3-g64, comfy, … or a weight set; or inputs: a4-static, a8-step, …;"
    " repeatable [default: mlx-w4-g64; of steps a4-static].",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Images it is measured on, beyond those of STORE.",
)
@click.option(
    "--targets",
    type=Named(vocabulary.linears, commas=True),
    callback=parse_names,
    help="Names or patterns, like mm0.*,final_layer.final.linear [default: all].",
)
@click.option(
    "--sites",
    type=Named(vocabulary.every_site, commas=True),
    callback=parse_names,
    help="Sites of targets [default: all].",
)
@click.option(
    "--blocks",
    type=Named(vocabulary.blocks, commas=True),
    callback=parse_names,
    help="Blocks of targets [default: all].",
)
@click.option(
    "--prompts",
    type=Source(Path),
    help="Text or CSV file with prompts of the images [default: the model's own].",
)
@model_option
@local_ckpt_option
@resume_option
@force_option
@sharing_options
@dry_run_option
@json_option
def command(store: str, as_json: bool, **options: Any) -> None:
    """Quantize one linear of STORE's model at a time, and keep what it does to trajectories.

    Images are sampled from the same prompts and seeds by the model as it is and with one target
    quantized, all else as it is. Printed for each target: the relative error of the final latent,
    mean over images; the largest over steps and images; the least cosine with the model as it is.

    Formats are those of taqstore evaluate, one side of a variant each. Inputs are quantized where
    they were observed, at the sites of blocks. What cannot be in a format is named on stderr.

    Writes sensitivity/UNIT/FORMAT, and of weights scores/UNIT/FORMAT, what is known of each target
    without running the model; taqstore analyze ranks compares the two. Stopped, it goes on with
    --resume; several processes share the targets out; taqstore merge joins those of two machines.

    \b
    Examples:
      taqstore sensitivity run.zarr
      taqstore sensitivity run.zarr --format mlx-w3-g64 --format gptq --targets 'mm0.*' --resume
      taqstore sensitivity run.zarr --unit step --format a4-static --seeds 8
    """
    from taqstore.names import ACTIVATIONS
    from taqstore.query.sites import paths_of
    from taqstore.store.reader import open_store

    pipeline = import_module(SENSITIVITY_PIPELINE)
    opened = open_store(store)
    asked = {name: options[name] or () for name in ("formats", "targets")}
    with progress_bar("loading the model", unit="forwards") as progress:
        mode = mode_of(options, progress)
        outcome = pipeline.sensitivity(opened, **options | asked, mode=mode)
    if outcome.plan is not None:
        print_plan(outcome, as_json=as_json)
        return
    paths = [path for path in outcome.groups if path.startswith("sensitivity/")]
    rows = pipeline.rows_of(opened, paths)
    if as_json:
        groups = groups_document(outcome)
        print_json({"groups": groups, "targets": rows, "notes": outcome.notes})
    elif rows:
        print_rows(tuple(rows[0]), [_cells(row) for row in rows])
    say_notes(outcome)
    say_nonfinite(opened, paths_of(opened, ACTIVATIONS))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())

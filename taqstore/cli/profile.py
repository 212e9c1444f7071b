"""`taqstore profile`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.cli import PROFILE_PIPELINE, vocabulary
from taqstore.cli.common import store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import (
    check_draw,
    images_option,
    local_ckpt_option,
    model_option,
    num_samples_option,
    seed_option,
    stride_option,
)
from taqstore.cli.outcome import say_notes
from taqstore.cli.output import output_option
from taqstore.cli.progress import progress_bar


@click.command("profile", cls=LongCommand)
@store_argument
@output_option(help="Folder for figures [default: STORE's name with -profile].", only="folder")
@images_option
@num_samples_option
@seed_option
@stride_option(latents=2, help="Every how many steps, where statistics are still to be collected")
@click.option(
    "--layer",
    "layers",
    type=Named(vocabulary.layers),
    multiple=True,
    help="Layer to show, any spelling or a glob; repeatable [default: a spread over the depth].",
)
@model_option
@local_ckpt_option
@click.option("--resume", is_flag=True, help="Go on: complete batches are always kept.")
@dry_run_option
def command(store: str, output: Path | None, resume: bool, **options: Any) -> None:
    """Post-GELU diagnostics of STORE in one go.

    Collects on mlp.fc2 what is missing, of latents or of a Phase 1 file's samples, prints the
    summary table (medians, ranges, share of negative values, outlier channels) and draws the five
    figures; of --layer, histogram and channels have a page each.

    \b
    Examples:
      taqstore profile run.zarr
      taqstore profile phase1.zarr --model sd3-medium --num-samples 512 --layer mm_00_img
    """
    check_draw(options)
    profile = import_module(PROFILE_PIPELINE).profile
    folder = output or Path(f"{Path(store).name.removesuffix('.zarr')}-profile")
    with progress_bar("loading the model", unit="forwards") as progress:
        outcome = profile(store, folder, progress=progress, **options)
    if outcome.plan is not None and options["dry_run"]:
        print_plan(outcome, as_json=False)
        return
    say_notes(outcome)
    for path in outcome.files:
        click.echo(str(path))

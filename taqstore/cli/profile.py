"""`taqstore profile`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.cli import PROFILE_PIPELINE
from taqstore.cli.common import store_argument
from taqstore.cli.long_command import LongCommand
from taqstore.cli.model_options import images_option, local_ckpt_option, model_option
from taqstore.cli.outcome import say_notes
from taqstore.cli.output import output_option
from taqstore.cli.progress import progress_bar


@click.command("profile", cls=LongCommand)
@store_argument
@output_option(help="Folder for figures [default: STORE's name with -profile].", only="folder")
@images_option
@click.option(
    "--stride",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Every how many steps, where statistics are still to be collected.",
)
@model_option
@local_ckpt_option
@click.option("--resume", is_flag=True, help="Go on: complete batches are always kept.")
def command(store: str, output: Path | None, resume: bool, **options: Any) -> None:
    """Post-GELU diagnostics of STORE in one go.

    Collects on mlp.fc2 what is missing, prints the summary table (medians, ranges, share of
    negative values, outlier channels) and draws the five figures.
    """
    profile = import_module(PROFILE_PIPELINE).profile
    folder = output or Path(f"{Path(store).name.removesuffix('.zarr')}-profile")
    with progress_bar("loading the model", unit="forwards") as progress:
        outcome = profile(store, folder, progress=progress, **options)
    say_notes(outcome)
    for path in outcome.files:
        click.echo(str(path))

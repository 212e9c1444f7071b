"""`taqstore profile`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.cli import PROFILE_PIPELINE
from taqstore.cli.common import say, store_argument
from taqstore.cli.live import (
    LiveCommand,
    forward_progress,
    images_option,
    local_ckpt_option,
    model_option,
)
from taqstore.cli.output import output_option


@click.command("profile", cls=LiveCommand)
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
    with forward_progress() as (start, advance):
        result = profile(store, folder, on_start=start, on_progress=advance, **options)
    for note in result.notes:
        say(f"note: {note}")
    for path in result.written:
        click.echo(str(path))

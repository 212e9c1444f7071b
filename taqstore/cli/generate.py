"""`taqstore generate`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.asked import MAX_SEED
from taqstore.cli import GENERATE_PIPELINE, vocabulary
from taqstore.cli.common import renamed, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_run
from taqstore.cli.long_command import LongCommand, force_option, resume_option
from taqstore.cli.model_options import MODEL, known_model, local_ckpt_option
from taqstore.cli.output import Source, Target, json_option
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of, sharing_options
from taqstore.cli.words import Word


@click.command("generate", cls=LongCommand)
@store_argument
@click.option(
    "--model",
    required=True,
    metavar=MODEL,
    type=Named(vocabulary.models),
    callback=known_model,
    help="Model to sample with.",
)
@click.option(
    "--prompts",
    type=Source(Path),
    help="A .txt file with one prompt per line, or a .csv file with a prompt column; taken in turn "
    "where images are more [default: those that come with the model].",
)
@renamed(
    "--num-images",
    "images",
    old="--images",
    required=True,
    type=click.IntRange(1, 1_000_000),
    help="How many.",
)
@click.option(
    "--steps", type=click.IntRange(1, 1000), default=50, show_default=True, help="Model calls."
)
@click.option("--cfg", "cfg_weight", type=float, help="Guidance weight [default: the model's].")
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED - 1_000_000),
    default=42,
    show_default=True,
    help="Image i is made from seed + i.",
)
@click.option(
    "--latent-size",
    type=click.IntRange(2, 1024),
    nargs=2,
    metavar="H W",
    help="Of the latent [default: the model's].",
)
@renamed(
    "--timestep-shift",
    "shift",
    old="--shift",
    type=click.FloatRange(0, min_open=True),
    help="Shift of the timesteps [default: the model's].",
)
@click.option("--negative-prompt", default="", help="What guidance leads away from.")
@click.option(
    "--dtype",
    type=Word(["float16", "float32"]),
    help="Of weights and activations [default: the model's].",
)
@click.option(
    "--t5/--no-t5", "use_t5", default=None, help="Text encoder T5 [default: the model's]."
)
@local_ckpt_option
@click.option(
    "--save-images",
    type=Target(file_okay=False),
    help="Folder for pictures; STORE keeps them too.",
)
@resume_option
@force_option
@sharing_options
@dry_run_option
@json_option
def command(
    store: str,
    save_images: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Sample images and write the latent of every step into STORE.

    Euler sampling with guidance, as DiffusionKit does it. One image is one commit; more images are
    added by a larger --num-images with --resume.

    \b
    Examples:
      taqstore generate run.zarr --model reference --num-images 4 --steps 16
      taqstore generate run.zarr --model sd3-medium --prompts p.csv --num-images 32 --resume
      taqstore generate mine.zarr --model reference --prompts prompts.txt --num-images 8 \\
          --steps 16 --dry-run
    """
    pipeline = import_module(GENERATE_PIPELINE)
    with progress_bar("loading the model", unit="forwards") as progress:
        mode = mode_of(options, progress)
        request = pipeline.Request(**options)
        outcome = pipeline.generate(store, request, save_images=save_images, mode=mode)
    print_run(outcome, as_json=as_json)

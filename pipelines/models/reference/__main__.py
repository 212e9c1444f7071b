"""Train, judge and publish the reference model: `python -m taqstore.pipelines.models.reference`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from taqstore.errors import TaqError
from taqstore.files.png import contact_sheet

from ..load import load_pipeline
from .accuracy import evaluate as judge_pictures
from .finetune import LOOKS, FineTune
from .finetune import finetune as finetune_model
from .latent import grey
from .model import checkpoint_path
from .record import publish as publish_run
from .train import WEIGHTS, Recipe, read_run
from .train import train as train_model

# Of the contact sheet: pictures in a row, and their side in pixels.
_COLUMNS, _SIDE = 10, 96
_POSITIVE = click.IntRange(min=1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train, judge and publish the reference model."""


@cli.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--steps", type=_POSITIVE, default=Recipe.steps, show_default=True, help="Length of the run."
)
@click.option("--seed", default=Recipe.seed, show_default=True, help="Of weights and batches.")
def train(folder: Path, steps: int, seed: int) -> None:
    """Train into FOLDER, or go on where it stands."""

    def tell(step: int, loss: float) -> None:
        if step % recipe.every == 0:
            click.echo(f"step {step} of {steps}: loss {loss:.4f}", err=True)

    recipe = Recipe(steps=steps, seed=seed)
    train_model(folder, recipe, on_step=tell)
    click.echo(str(folder / WEIGHTS))


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--look", type=click.Choice(list(LOOKS)), default=FineTune.look, show_default=True)
@click.option(
    "--rank",
    type=click.IntRange(min=0),
    default=FineTune.rank,
    show_default=True,
    help="Of the update of each linear; 0 trains all weights.",
)
@click.option(
    "--linears",
    default=FineTune.linears,
    show_default=True,
    help="Glob over linears that a low-rank update changes.",
)
@click.option("--steps", type=_POSITIVE, default=FineTune.steps, show_default=True)
@click.option("--peak", type=float, default=FineTune.peak, show_default=True, help="Largest rate.")
@click.option("--seed", default=FineTune.seed, show_default=True, help="Of updates and batches.")
def finetune(file: Path, **how: Any) -> None:
    """Train on from the published weights with digits of another look; write them into FILE."""

    def tell(step: int, loss: float) -> None:
        if step % 10 == 0:
            click.echo(f"step {step} of {how['steps']}: loss {loss:.4f}", err=True)

    for name in finetune_model(file, FineTune(**how), on_step=tell):
        click.echo(name)


@cli.command()
@click.option(
    "--checkpoint", type=click.Path(exists=True, path_type=Path), help="Weights to judge."
)
@click.option("--images", type=_POSITIVE, default=200, show_default=True)
@click.option("--steps", type=_POSITIVE, default=28, show_default=True, help="Euler steps.")
@click.option("--cfg", type=float, help="Guidance weight; default the model's.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--sheet", type=click.Path(dir_okay=False, path_type=Path), help="Contact sheet, PNG."
)
def evaluate(
    checkpoint: Path | None,
    images: int,
    steps: int,
    cfg: float | None,
    seed: int,
    sheet: Path | None,
) -> None:
    """Sample pictures and print how many show the prompted digit."""
    model = load_pipeline("reference", local_ckpt=checkpoint or checkpoint_path())
    result, pictures, prompts = judge_pictures(
        model, images=images, steps=steps, cfg_weight=cfg, seed=seed, on_image=_tell
    )
    if sheet:
        shown, firsts = grey(pictures), range(0, images, _COLUMNS)
        contact_sheet(
            [shown[first : first + _COLUMNS] for first in firsts],
            sheet,
            captions=[prompts[first : first + _COLUMNS] for first in firsts],
            smallest=_SIDE,
        )
    for name, value in vars(result).items():
        click.echo(f"{name}: {value}")


@cli.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=checkpoint_path().parent,
    help="Default: this package.",
)
def publish(folder: Path, into: Path) -> None:
    """Judge the run in FOLDER with 200 pictures; write weights, record and card."""
    run, _ = read_run(folder)
    model = load_pipeline("reference", local_ckpt=folder / WEIGHTS)
    result, _, _ = judge_pictures(model, on_image=_tell)
    publish_run(run, folder, result, into=into)
    click.echo(f"accuracy {result.accuracy:.1%}")


def _tell(images: int) -> None:
    if images % 20 == 0:
        click.echo(f"{images} images", err=True)


if __name__ == "__main__":
    try:
        cli()
    except TaqError as error:
        click.echo(f"reference: {error}", err=True)
        sys.exit(1)

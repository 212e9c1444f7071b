"""Options of the commands that run a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from taqstore.asked import MAX_SEED, word_of
from taqstore.cli import MODELS_TABLE, vocabulary
from taqstore.cli.common import renamed, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option
from taqstore.cli.long_command import force_option, resume_option
from taqstore.cli.output import Source, json_option
from taqstore.cli.sharing import sharing_options

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_MAX_IMAGES = 1_000_000


def parse_images(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Image ids written as `0,3-5`; what is not understood is a usage error that names it."""
    if value is None:
        return None
    found: list[int] = []
    for part in value.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first >= _MAX_IMAGES:
            raise click.BadParameter(f"{part!r} is no image id or range; write it like 0,3-5")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def parse_names(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Names separated by commas, each once."""
    if value is None:
        return None
    return tuple(dict.fromkeys(part.strip() for part in value.split(",")))


images_option = click.option(
    "--images",
    callback=parse_images,
    help="Image ids, like 0,3-5 [default: all that are complete].",
)
MODEL = f"[{'|'.join(import_module(MODELS_TABLE).MODELS)}]"
"""Models as `--model` takes them."""


def known_model(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A model of the table, as it then is; else a MisuseError."""
    models = import_module(MODELS_TABLE).MODELS
    return None if value is None else word_of(value, models, "model")


model_option = click.option(
    "--model",
    type=Named(vocabulary.models),
    metavar=MODEL,
    callback=known_model,
    help="Model that made ingested latents or samples, which do not say it themselves.",
)
local_ckpt_option = click.option(
    "--local-ckpt",
    type=Source(folders=True),
    help="Weights file in the layout of the hub's, or a folder of export mlx.",
)


def known_set(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A name that a weight set can have; else a MisuseError."""
    from taqstore.kinds.weight_sets import check_set

    return value if value is None else check_set(value)


def set_option(default: str) -> Callable[[Any], Any]:
    """Which weight set is written."""
    return click.option(
        "--set",
        type=Named(vocabulary.weight_sets),
        metavar="NAME",
        callback=known_set,
        default=default,
        show_default=True,
        help="Weight set to write; others in STORE are left alone.",
    )


weight_group_size_option = renamed(
    "--weight-group-size",
    "group_size",
    old="--group-size",
    type=click.IntRange(1),
    help="Inputs that share a weight step [default: all of an output channel].",
)
nearest_bits_option = renamed(
    "--weight-bits",
    "bits",
    old="--bits",
    type=click.IntRange(2, 8),
    help="Of weights rounded to nearest [default: 4].",
)
time_groups_option = renamed(
    "--time-groups",
    "groups",
    old="--groups",
    type=click.IntRange(2),
    help="Groups of steps, of grouped variants [default: 4].",
)
config_option = click.option(
    "--config",
    type=Source(Path),
    help="Config of export quant-config, for variants WEIGHTS/config.",
)
allocation_option = click.option(
    "--allocation",
    type=Source(Path),
    help="Document of analyze frontier --paste allocation, for variants mixed.",
)
num_samples_option = click.option(
    "--num-samples",
    type=click.IntRange(1),
    help="Run so many samples of a Phase 1 file [default: all, where STORE has no latents].",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Of the draw of --num-samples: the source's [default: 0].",
)


def stride_option(*, latents: int, help: str = "Every how many steps") -> Callable[..., Any]:
    """Every how many steps are run, unless told otherwise this many of latents."""
    return click.option(
        "--stride",
        type=click.IntRange(1),
        help=f"{help} [default: {latents} of latents, 1 of samples].",
    )


def check_draw(options: dict[str, Any], *, seed: str = "--seed") -> None:
    """Refuse options of samples and of latents that do not go together."""
    if options["num_samples"] is not None and options["images"] is not None:
        raise click.UsageError("--num-samples draws samples, --images chooses latents: give one")
    if options["seed"] is not None and options["num_samples"] is None:
        raise click.UsageError(f"{seed} draws --num-samples: give both")


def rerun_options(
    *,
    stride: int,
    store: Callable[[Any], Any] = store_argument,
    model: Callable[[Any], Any] = model_option,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The store and the options of commands that run its latents or samples through a model."""
    options = (store, images_option, num_samples_option, seed_option,
               stride_option(latents=stride), model, local_ckpt_option,
               resume_option, force_option, sharing_options, dry_run_option,
               json_option)  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate

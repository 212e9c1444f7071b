"""Options of the commands that run a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from taqstore.cli import MODELS_TABLE
from taqstore.cli.common import store_argument
from taqstore.cli.long_command import force_option, resume_option
from taqstore.cli.output import Source, json_option

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
"""Models as `--model` takes them. What is none is refused where a row is looked for."""

model_option = click.option(
    "--model",
    metavar=MODEL,
    help="Model that made ingested latents, which do not say it themselves.",
)
local_ckpt_option = click.option(
    "--local-ckpt",
    type=Source(),
    help="Weights file in the layout of the hub's.",
)


def rerun_options(*, stride: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The store and the options of commands that run its latents through their model again."""
    stride_option = click.option(
        "--stride", type=click.IntRange(1), default=stride, show_default=True,
        help="Every how many steps.",
    )  # fmt: skip
    options = (store_argument, images_option, stride_option, model_option, local_ckpt_option,
               resume_option, force_option, json_option)  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate

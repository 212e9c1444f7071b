"""Options and behaviour of the commands that run a model."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from taqstore.cli.common import say, store_argument
from taqstore.cli.output import json_option, print_json, print_rows
from taqstore.pipelines.models.table import MODELS

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_ARGUMENTS = "taqstore.arguments"
_MAX_IMAGES = 1_000_000


class LiveCommand(click.Command):
    """A command that remembers how it was called, to say how to go on when it is stopped."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, then parse them."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; Ctrl-C prints the command that goes on and exits with 130."""
        if ctx.params.get("resume") and ctx.params.get("force"):
            raise click.UsageError("--resume and --force exclude each other")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # A read of zarr that was cut off would have the last word, on its way out.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            say("taqstore: stopped; what was complete is kept. Go on with:")
            say(f"  {_going_on(ctx)}")
            sys.exit(130)


def _going_on(ctx: click.Context) -> str:
    given = [word for word in ctx.meta[_ARGUMENTS] if word not in ("--resume", "--force")]
    return shlex.join(["taqstore", str(ctx.info_name), *given, "--resume"])


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
MODEL = f"[{'|'.join(MODELS)}]"
"""Models as `--model` takes them. What is none is refused where a row is looked for."""

model_option = click.option(
    "--model",
    metavar=MODEL,
    help="Model that made ingested latents, which do not say it themselves.",
)
local_ckpt_option = click.option(
    "--local-ckpt",
    type=click.Path(exists=True, dir_okay=False),
    help="Weights file in the layout of the hub's.",
)
resume_option = click.option("--resume", is_flag=True, help="Skip what is complete.")
force_option = click.option("--force", is_flag=True, help="Replace the groups.")


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


@contextmanager
def forward_progress() -> Iterator[tuple[Callable[[int], None], Callable[[str, int], None]]]:
    """A progress bar over forwards with ETA on stderr; silent when that is no terminal.

    Yields `(start, advance)`: call `start(total)` once, then `advance(label, forwards)`.
    """
    if not sys.stderr.isatty():
        yield (lambda total: None), (lambda label, count: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the model", total=None)
        yield (
            lambda total: bar.update(task, total=total),
            lambda label, count: bar.update(task, advance=count, description=label),
        )


def print_outcome(outcome: Any, *, as_json: bool) -> None:
    """What a command did: a table of groups on stdout, or a JSON document; notes on stderr."""
    from taqstore.upkeep.info import format_bytes

    if as_json:
        groups = {path: vars(counts) for path, counts in outcome.groups.items()}
        print_json({"groups": groups, "notes": outcome.notes})
    else:
        rows = [
            (path, str(c.written), str(c.skipped), format_bytes(c.bytes_out))
            for path, c in outcome.groups.items()
        ]
        print_rows(("group", "written", "skipped", "stored"), rows)
    for note in outcome.notes:
        say(f"note: {note}")

"""Commands that may run for hours: stopped by Ctrl-C, they say how to go on."""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from typing import Any

import click

from taqstore.cli.common import complain
from taqstore.cli.talk import Command, wide_option
from taqstore.place.remote.options import without_secrets

_ARGUMENTS = "taqstore.arguments"

resume_option = click.option("--resume", is_flag=True, help="Skip what is complete.")
force_option = click.option("--force", is_flag=True, help="Replace the groups.")


class LongCommand(Command):
    """A command that remembers how it was called, to say how to go on when it is stopped.

    It prints a table of what it did.
    """

    def __init__(self, *args: Any, **particulars: Any) -> None:
        super().__init__(*args, **particulars)
        wide_option(self)

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
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            complain("taqstore: stopped; what was complete is kept. Go on with:")
            click.echo(f"  {_going_on(ctx)}", err=True)  # to be copied: as it was typed
            sys.exit(130)


def _going_on(ctx: click.Context) -> str:
    """The command as it was typed; with --resume, and so without --force, where it has that."""
    options, operands = _split(tuple(without_secrets(ctx.meta[_ARGUMENTS])))
    if "resume" in ctx.params:
        flags = {f"--{name}" for name in ("resume", "force") if ctx.params.get(name)}
        options = [*(word for word in options if word not in flags), "--resume"]
    words = ctx.command_path.split()[1:]  # of `taqstore plan generate` both
    return shlex.join(["taqstore", *words, *options, *operands])


def _split(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """What stands before a `--`, and it with what follows, where nothing is an option."""
    end = words.index("--") if "--" in words else len(words)
    return list(words[:end]), list(words[end:])

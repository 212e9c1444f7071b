"""`taqstore plan`."""

from __future__ import annotations

from importlib import import_module

import click

from taqstore.cli import COMMANDS
from taqstore.cli.sharing import GROUPS_ONLY
from taqstore.cli.talk import talk_options
from taqstore.cli.words import WordGroup

FILLING = ("generate", "cache", "collect", "adaround", "gptq", "sensitivity", "ingest")
"""Commands whose groups can be made before they are filled."""


class Filling(WordGroup):
    """The commands that fill a store, told to make its groups and no more."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(FILLING)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, with all its options; None if it fills nothing."""
        if cmd_name not in FILLING:
            return None
        ctx.meta[GROUPS_ONLY] = True
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them with their help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in FILLING])


@click.group(
    "plan",
    cls=Filling,
    params=talk_options(),
    subcommand_metavar="COMMAND STORE [OPTIONS]...",
)
def command() -> None:
    """Make the groups of a run, with all coordinates and shapes, and fill none.

    What follows is a command as its workers will be given it, without what shares it out. Then any
    number of processes fill the store, each with --resume, or --shard K/N: none changes a shape,
    and one with other options is refused. A worker that finds no groups makes them in the same way.

    \b
    Examples:
      taqstore plan generate new.zarr --model reference --num-images 200
      taqstore plan collect run.zarr --stride 1
    """

"""`taqstore completion`."""

from __future__ import annotations

import click

from taqstore.cli.shells import SHELLS
from taqstore.cli.talk import Command
from taqstore.cli.words import Word

PROGRAM = "taqstore"


@click.command("completion", cls=Command, no_args_is_help=True)
@click.argument("shell", metavar="SHELL", type=Word(tuple(SHELLS)))
def command(shell: str) -> None:
    """Print the script that lets SHELL (bash, zsh, fish) complete words of taqstore by TAB.

    Commands, options and their words; stores in the folder; groups, variables, layers, sites and
    weight sets of the store that is named.

    \b
    bash, in this shell, and in all to come:
      source <(taqstore completion bash)
      echo 'source <(taqstore completion bash)' >> ~/.bashrc
    zsh, after compinit:
      source <(taqstore completion zsh)
      echo 'source <(taqstore completion zsh)' >> ~/.zshrc
    fish, in this shell, and in all to come:
      taqstore completion fish | source
      taqstore completion fish > ~/.config/fish/completions/taqstore.fish

    The command must be on the path: activate its environment first (. .venv/bin/activate).
    """
    root = click.get_current_context().find_root().command
    complete = SHELLS[shell](root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    click.echo(complete.source(), nl=False)

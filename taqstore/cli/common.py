"""Talk, progress and the argument that most commands share."""

from __future__ import annotations

import click

store_argument = click.argument("store")


def say(text: str) -> None:
    """Talk: a line on stderr."""
    click.echo(text, err=True)

"""`--staging`: how much of the local disk what is fetched from far away may take."""

from __future__ import annotations

import os

import click

from taqstore.errors import MisuseError


def _told(context: click.Context, option: click.Parameter, text: str | None) -> None:
    """Say it for this command, and for processes that it starts."""
    if text is None:
        return
    from taqstore.arrays.staged import VARIABLE, size_of

    try:
        size_of(text)
    except MisuseError as error:
        raise click.BadParameter(str(error)) from error
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = text

    def as_before() -> None:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before

    context.call_on_close(as_before)


staging_option = click.option(
    "--staging",
    metavar="SIZE",
    expose_value=False,
    callback=_told,
    help="Of the folder of temporary files, what samples of a store elsewhere may take, like "
    "200GB; 0: none [default: 32 GB, of what is free half at most].",
)

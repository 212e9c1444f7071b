"""`taqstore upgrade`."""

from __future__ import annotations

from dataclasses import asdict

import click

from taqstore.cli.common import say, store_argument
from taqstore.cli.output import json_option, print_json
from taqstore.cli.talk import Command


@click.command("upgrade", cls=Command)
@store_argument
@json_option
def command(store: str, as_json: bool) -> None:
    """Bring STORE, of format 1, to the present format; in place, data files stay as they are.

    Every data file is read and checked; an item with a damaged one loses its flag. After an
    interruption the store opens, and the same command goes on.

    \b
    Examples:
      taqstore upgrade run.zarr
    """
    from taqstore.upkeep.upgrade import upgrade_store

    done = upgrade_store(store, on_group=lambda path: say(f"upgrading {path}"))
    if as_json:
        print_json(asdict(done))
    else:
        for path in done.groups:
            click.echo(path)
        click.echo(f"{len(done.groups)} groups brought to format 2")
    for note in done.notes:
        say(f"note: {note}")

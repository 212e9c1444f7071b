"""`taqstore repair`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from taqstore.cli.common import say, store_argument
from taqstore.cli.output import json_option, print_json
from taqstore.cli.talk import Command
from taqstore.errors import printable


@click.command("repair", cls=Command)
@store_argument
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@json_option
def command(store: str, dry_run: bool, as_json: bool) -> None:
    """Mend STORE: metadata from its second copy, flags of damaged items, leftovers.

    Items with a damaged file lose their flag: run the command that wrote them with --resume. What
    is whole is not touched. Exit code 1 if something cannot be mended.

    \b
    Examples:
      taqstore verify run.zarr
      taqstore repair run.zarr --dry-run
      taqstore repair run.zarr
    """
    from taqstore.upkeep.repair import repair_store

    steps = repair_store(store, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "steps": [asdict(step) for step in steps]})
    else:
        for step in steps:
            click.echo(
                f"{'mended' if step.done else 'lost'}  {printable(f'{step.where}: {step.what}')}"
            )
        if not steps:
            click.echo("whole: nothing to mend")
        elif dry_run:
            say("nothing was changed; without --dry-run it is")
    if any(not step.done for step in steps):
        sys.exit(1)

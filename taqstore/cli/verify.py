"""`taqstore verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from taqstore.cli.common import say, store_argument
from taqstore.cli.output import json_option, print_json
from taqstore.cli.scheduler import dealing, scheduler_option
from taqstore.cli.talk import Command
from taqstore.errors import printable


@click.command("verify", cls=Command)
@store_argument
@json_option
@scheduler_option
def command(store: str, as_json: bool, scheduler: str) -> None:
    """Compare STORE with what was written: documents, coordinates, flags, every byte of the data.

    Exit code 1 if anything is damaged; what is damaged is named on stdout.
    """
    from taqstore.place.sizes import format_bytes
    from taqstore.upkeep.verify import verify_store

    with dealing(scheduler, store) as each:
        report = verify_store(store, each=each)
    if as_json:
        told = [found.document for found in report.nonfinite]
        print_json({"ok": not report.damage, **asdict(report), "nonfinite": told})
    else:
        for finding in report.damage:
            click.echo(f"damaged  {printable(f'{finding.where}: {finding.what}')}")
        for finding in report.notes:
            say(f"note: {finding.where}: {finding.what}")
        for values in report.nonfinite:
            say(f"note: {values.sentence}")
        state = f"{len(report.damage)} damaged" if report.damage else "whole"
        click.echo(
            f"{state}: {report.groups} groups, {report.arrays} arrays, {report.chunks} chunks, "
            f"{format_bytes(report.bytes)} checked"
        )
    if report.damage:
        sys.exit(1)

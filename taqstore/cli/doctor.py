"""`taqstore doctor`."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from taqstore.cli import DOCTOR_PIPELINE
from taqstore.cli.output import json_option, print_json
from taqstore.cli.talk import Command, wide_option
from taqstore.terminal.aligned import print_folded


@click.command("doctor", cls=Command)
@click.argument("place", default=".", type=click.Path(exists=True, file_okay=False))
@json_option
@wide_option
def command(place: str, as_json: bool) -> None:
    """Look at this machine: versions, extras, disk, MLX and its speed, models within reach.

    PLACE is the folder in which stores are to lie [default: this one]. What is absent or slow says
    what to install. Exit code 1 if something is wrong, such as a package that is too old.

    \b
    Examples:
      taqstore doctor
      taqstore doctor --json
    """
    checks = list(import_module(DOCTOR_PIPELINE).examine(place))
    if as_json:
        print_json({"checks": [one.document for one in checks]})
    else:
        rows = [("check", "state", "found"), *((one.what, one.state, one.found) for one in checks)]
        what, state = (max(len(row[i]) for row in rows) for i in (0, 1))
        for row in rows:  # what was found is folded, never cut: it is what one came for
            print_folded(f"{row[0]:<{what}}  {row[1]:<{state}}  ", row[2])
        remedies = [one for one in checks if one.remedy]
        for one in remedies:
            click.echo(f"{'' if one is not remedies[0] else chr(10)}{one.what}: {one.remedy}")
    if any(one.state == "wrong" for one in checks):
        sys.exit(1)

"""Options and small helpers that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

store_argument = click.argument("store")
json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")


def print_json(document: Any) -> None:
    """One JSON document on stdout, floats in their shortest exact form."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned plain text on stdout: words left, numbers right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    for row in table:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _is_number(cell: str) -> bool:
    head = cell.split(" ")[0].rstrip("%")
    return head in ("", "-") or head.replace(".", "", 1).replace("-", "", 1).isdigit()


def say(text: str) -> None:
    """Talk: a line on stderr."""
    click.echo(text, err=True)

"""`taqstore info`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from taqstore.cli import vocabulary
from taqstore.cli.common import say, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.output import json_option, print_json, print_rows
from taqstore.errors import printable


@click.command("info")
@store_argument
@click.argument("group", required=False, type=Named(vocabulary.groups))
@json_option
def command(store: str, group: str | None, as_json: bool) -> None:
    """Show what STORE holds, or one GROUP of it in detail."""
    from taqstore.store.reader import open_store
    from taqstore.upkeep.info import describe_group, describe_store

    opened = open_store(store, chunks=None, checksum=True)
    description = describe_group(opened, group) if group else describe_store(opened)
    if as_json:
        print_json(description)
    elif group:
        _print_group(description)
    else:
        _print_store(description)
    for found in description["nonfinite"]:
        say(f"note: {found['note']}")
    for path in description["nonfinite_unknown"]:
        say(f"note: {path}: of so many batches, taqstore verify counts the non-finite values")
    if description.get("damaged"):
        sys.exit(1)


def _print_store(description: Mapping[str, Any]) -> None:
    from taqstore.upkeep import kept
    from taqstore.upkeep.info import format_bytes, summary_lines

    click.echo(f"store   {description['store']}")
    click.echo(f"format  {description['format']}, digest {printable(description['digest'])}")
    click.echo(f"stored  {format_bytes(description['stored_bytes'])}")
    click.echo()
    print_rows(
        ("group", "dims", "variables", "stored", "ratio", "written"), summary_lines(description)
    )
    tables = {
        kept.SET_COLUMNS: kept.set_lines(description),
        kept.TRAJECTORY_COLUMNS: kept.trajectory_lines(description),
        kept.SENSITIVITY_COLUMNS: kept.sensitivity_lines(description),
    }
    for columns, rows in tables.items():
        if rows:
            print_rows(columns, rows)
            click.echo()
    if covered := description["coverage"]:
        share = f"{covered['observed_weights']:,} of {covered['model_weights']:,}"
        click.echo(f"inputs of {covered['percent']:g} % of the model's weights observed ({share})")
    click.echo()
    for record in description["provenance"]:
        inputs = ", ".join(str(entry["name"]) for entry in record["inputs"][:3])
        more = len(record["inputs"]) - 3
        inputs += f" and {more} more" if more > 0 else ""
        # Commands that run a model read nothing but the store.
        inputs = inputs or f"model {record['parameters'].get('model', 'not recorded')}"
        groups = ", ".join(map(str, record["groups"]))
        shown = (printable(text) for text in (record["time"], record["command"], inputs, groups))
        click.echo("{}  {}  {}  -> {}".format(*shown))
        until = record["parameters"].get("until_enough")
        if isinstance(until, dict) and "note" in until:
            click.echo(f"  {printable(str(until['note']))}")
    for path, what in description["damaged"].items():
        say(f"damaged: {path}: {what}")
    for note in description["notes"]:
        say(f"note: {note}")


def _print_group(group: Mapping[str, Any]) -> None:
    from taqstore.upkeep.info import format_bytes

    items = group["items"]
    click.echo(f"group   {group['group']} ({group['kind']})")
    click.echo(f"dims    {' '.join(f'{d}={n}' for d, n in group['dims'].items())}")
    click.echo(
        f"items   {items['written']} of {items['total']} ({' x '.join(items['dims'])}) written, "
        f"{group['written_percent']:g} %"
    )
    click.echo()
    print_rows(
        ("coordinate", "dims", "dtype", "range"),
        [(n, ", ".join(c["dims"]), c["dtype"], _range(c)) for n, c in group["coords"].items()],
    )
    click.echo()
    print_rows(
        ("variable", "dtype", "shape", "shards", "chunks", "stored", "ratio", "codecs"),
        [
            (
                v["name"],
                v["dtype"],
                "x".join(map(str, v["shape"])),
                "x".join(map(str, v["shards"] or ["-"])),
                "x".join(map(str, v["chunks"])),
                format_bytes(v["stored_bytes"]),
                f"{v['ratio']:.2f}" if v["ratio"] else "-",
                "+".join(v["codecs"]),
            )
            for v in group["variables"]
        ],
    )


def _range(coordinate: Mapping[str, Any]) -> str:
    low, high = ("min", "max") if "min" in coordinate else ("first", "last")
    if low not in coordinate:
        return "-"
    texts = [str(coordinate[key]) for key in (low, high)]
    return " .. ".join(t if len(t) <= 40 else t[:39] + "…" for t in texts)

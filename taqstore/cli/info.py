"""`taqstore info`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from taqstore.cli import vocabulary
from taqstore.cli.common import complain, say, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.output import json_option, print_json, print_rows
from taqstore.cli.scheduler import dealing, scheduler_option
from taqstore.cli.several import addresses, open_asked, with_others
from taqstore.cli.talk import Command, wide_option
from taqstore.errors import printable
from taqstore.terminal.aligned import print_folded
from taqstore.terminal.width import room

_NAMED = 3
"""Groups of a record that are named; of more, the first."""


@click.command("info", cls=Command)
@store_argument
@with_others
@click.argument("group", required=False, type=Named(vocabulary.groups))
@json_option
@scheduler_option
@wide_option
def command(store: str, group: str | None, as_json: bool, scheduler: str) -> None:
    """Show what STORE holds, or one GROUP of it in detail."""
    from taqstore.upkeep.info import describe_group, describe_store

    opened = open_asked(store, chunks=None, checksum=True)
    if group:
        description = describe_group(opened, group)
    else:
        with dealing(scheduler, *addresses(store)) as each:
            description = describe_store(opened, each=each)
    if as_json:
        print_json(description)
    elif group:
        _print_group(description)
    else:
        _print_store(description)
    damaged = description.get("damaged", {})
    for path, what in damaged.items():
        complain(f"damaged: {path}: {what}")
    for found in description["nonfinite"]:
        say(f"note: {found['note']}")
    for path in description["nonfinite_unknown"]:
        say(f"note: {path}: of so many batches, taqstore verify counts the non-finite values")
    if damaged:
        sys.exit(1)


def _print_store(description: Mapping[str, Any]) -> None:
    from taqstore.place.sizes import format_bytes
    from taqstore.upkeep import kept
    from taqstore.upkeep.info import summary_lines
    from taqstore.upkeep.made_by import run_lines

    lines = [
        ("store", str(description["store"])),
        ("format", f"{description['format']}, digest {printable(description['digest'])}"),
        ("stored", format_bytes(description["stored_bytes"])),
        *(run_lines(description["run"]) if description["run"] else ()),
    ]
    for head, text in lines:
        print_folded(f"{head:<8}", text)
    click.echo()
    print_rows(
        ("group", "dims", "variables", "stored", "ratio", "written"),
        summary_lines(description),
        spare=("ratio", "variables", "dims"),
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
        said = f"inputs of {covered['percent']:g} % of the model's weights observed ({share})"
        print_folded("", said)
    click.echo()
    for record in description["provenance"]:
        _print_record(record)
    for note in description["notes"]:
        say(f"note: {note}")


def _print_record(record: Mapping[str, Any]) -> None:
    """A line of provenance: when, what, from what, into which groups."""
    inputs = ", ".join(str(entry["name"]) for entry in record["inputs"][:3])
    more = len(record["inputs"]) - 3
    inputs += f" and {more} more" if more > 0 else ""
    # Commands that run a model read nothing but the store.
    inputs = inputs or f"model {_model_of(record['parameters'])}"
    groups = _first_and_count(list(map(str, record["groups"])))
    shown = [printable(text) for text in (record["time"], record["command"], inputs, groups)]
    print_folded("", "{}  {}  {}  -> {}".format(*shown))
    until = record["parameters"].get("until_enough")
    if isinstance(until, dict) and "note" in until:
        print_folded("  ", printable(str(until["note"])))


def _model_of(parameters: Mapping[str, Any]) -> str:
    """The model of a record; weights rounded site by site tell it for each."""
    runs = parameters.get("runs")
    each = [parameters, *(runs.values() if isinstance(runs, Mapping) else ())]
    named = (one["model"] for one in each if isinstance(one, Mapping) and "model" in one)
    return str(next(named, "not recorded"))


def _first_and_count(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{names[0]} and {len(names) - 1} more"


def _print_group(group: Mapping[str, Any]) -> None:
    from taqstore.place.sizes import format_bytes

    items = group["items"]
    print_folded("group   ", f"{group['group']} ({group['kind']})")
    print_folded("dims    ", " ".join(f"{d}={n}" for d, n in group["dims"].items()))
    print_folded(
        "items   ",
        f"{items['written']} of {items['total']} ({' x '.join(items['dims'])}) written, "
        f"{group['written_percent']:g} %",
    )
    click.echo()
    print_rows(
        ("coordinate", "dims", "dtype", "range"),
        [(n, ", ".join(c["dims"]), c["dtype"], _range(c)) for n, c in group["coords"].items()],
        spare=("dtype", "dims"),
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
        spare=("codecs", "shards", "chunks", "ratio"),
    )


def _range(coordinate: Mapping[str, Any]) -> str:
    low, high = ("min", "max") if "min" in coordinate else ("first", "last")
    if low not in coordinate:
        return "-"
    exact = room() is None
    texts = [
        f"{end:.6g}" if isinstance(end, float) and not exact else str(end)
        for end in (coordinate[key] for key in (low, high))
    ]
    return " .. ".join(t if len(t) <= 40 else t[:39] + "…" for t in texts)

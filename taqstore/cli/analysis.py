"""What subcommands of `taqstore analyze` share: options, the run, and the output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from taqstore.cli.common import json_option, say, store_argument
from taqstore.cli.scheduler import computing, scheduler_option

SHARED: tuple[Callable[[Any], Any], ...] = (
    store_argument,
    click.option("--source", help="Group prefix [default: first of those in the store]."),
    click.option("--site", "sites", multiple=True, help="attn.qkv, mlp.fc2, … Repeatable."),
    click.option("--layer", help="Glob over layers, or any spelling of one."),
    click.option("--step", help="Step index, or A:B:S."),
    click.option("--batch", help="Observed batches to use: A:B:S."),
    click.option("--csv", "as_csv", is_flag=True, help="Print CSV with exact floats."),
    json_option,
    click.option("--limit", default=40, show_default=True, help="Rows of a printed table; 0: all."),
    click.option("-o", "--output", type=click.Path(), help="FILE.csv, .parquet, .nc or .zarr."),
    click.option("--force", is_flag=True, help="Overwrite the output."),
    scheduler_option,
)


def run(name: str, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Select, analyse site by site, print or write.

    Parameters
    ----------
    given
        Values of `SHARED`.
    options
        Those of the analysis.
    """
    from taqstore.query.analyze import analyze
    from taqstore.store.reader import open_store

    if given["as_csv"] + given["as_json"] + (given["output"] is not None) > 1:
        raise click.UsageError("--csv, --json and -o exclude each other")
    selection = {key: given[key] for key in ("layer", "step", "batch")}
    results = analyze(
        name,
        open_store(given["store"]),
        source=given["source"],
        sites=given["sites"],
        selection=selection,
        **options,
    )
    with computing(given["scheduler"], given["store"]):
        if given["output"] is not None:
            _write(results, Path(given["output"]), given["force"])
        else:
            _print(results, given)


def _print(results: dict[str, Any], given: dict[str, Any]) -> None:
    from taqstore.files.tables import print_table, write_csv, write_json
    from taqstore.query.analyze import site_tables

    tables = site_tables(results)
    if given["as_json"]:
        write_json(tables, sys.stdout)
        return
    if given["as_csv"]:
        if len(tables) > 1:
            say(f"note: {len(tables)} tables of different dimensions, parted by empty lines")
        for number, table in enumerate(tables):
            click.echo("" if number == 0 else "\n", nl=False)
            write_csv(table, sys.stdout)
        return
    for number, table in enumerate(tables):
        click.echo("" if number == 0 else "\n", nl=False)
        print_table(table, given["limit"])


def _write(results: dict[str, Any], path: Path, force: bool) -> None:
    from taqstore.query.analyze import write_results

    write_results(results, path, force=force)
    say(f"wrote {path}")

"""`taqstore diff`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from taqstore.cli.common import json_option, say


@click.command("diff")
@click.argument("first")
@click.argument("second")
@click.argument("group", required=False)
@click.argument("variable", required=False)
@click.option("--source", help="Group prefix [default: first that both have].")
@click.option("--by", help="Column to order by [default: jensen_shannon, where there is one].")
@click.option("--layer", help="Glob over layers, or any spelling of one.")
@click.option("--step", help="Step index, or A:B:S.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with exact floats.")
@json_option
@click.option("--limit", default=20, show_default=True, help="Rows of a printed table; 0: all.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="FILE.csv or .parquet.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
def command(
    first: str,
    second: str,
    group: str | None,
    variable: str | None,
    source: str | None,
    by: str | None,
    layer: str | None,
    step: str | None,
    as_csv: bool,
    as_json: bool,
    limit: int,
    output: str | None,
    force: bool,
) -> None:
    """Compare stores FIRST and SECOND per layer and step, biggest movers first.

    Ratios of ranges, drift of shifts, Jensen-Shannon divergence and 1-Wasserstein distance of
    histograms. With GROUP and VARIABLE, any variable label by label.

    \b
    Examples:
      taqstore diff old.zarr new.zarr --limit 10
      taqstore diff old.zarr new.zarr latents x
    """
    if as_csv + as_json + (output is not None) > 1:
        raise click.UsageError("--csv, --json and -o exclude each other")
    from taqstore.files.tables import print_table, write_csv, write_json
    from taqstore.query.diff import diff, movers
    from taqstore.store.reader import open_store

    results = diff(
        open_store(first),
        open_store(second),
        source=source,
        group=group,
        variable=variable,
        selection={"layer": layer, "step": step},
    )
    table = movers(results, by=by)
    if output is not None:
        from taqstore.files.datasets import write_table

        write_table(table, Path(output), force=force)
        say(f"wrote {output}")
    elif as_json:
        write_json([table], sys.stdout)
    elif as_csv:
        write_csv(table, sys.stdout)
    else:
        print_table(table, limit)

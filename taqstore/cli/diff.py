"""`taqstore diff`."""

from __future__ import annotations

from functools import partial

import click

from taqstore.cli.common import say_nonfinite
from taqstore.cli.output import Output, table_output
from taqstore.files.targets import TABLES


@click.command("diff")
@click.argument("first")
@click.argument("second")
@click.argument("group", required=False)
@click.argument("variable", required=False)
@click.option("--source", help="Group prefix [default: first that both have].")
@click.option("--by", help="Column to order by [default: jensen_shannon, where there is one].")
@click.option("--layer", help="Glob over layers, or any spelling of one.")
@click.option("--step", help="Step index, or A:B:S.")
@table_output(suffixes=TABLES, limit=20, only="file")
def command(
    first: str,
    second: str,
    group: str | None,
    variable: str | None,
    source: str | None,
    by: str | None,
    layer: str | None,
    step: str | None,
    output: Output,
) -> None:
    """Compare stores FIRST and SECOND per layer and step, biggest movers first.

    Ratios of ranges, drift of shifts, Jensen-Shannon divergence and 1-Wasserstein distance of
    histograms. With GROUP and VARIABLE, any variable label by label.

    \b
    Examples:
      taqstore diff old.zarr new.zarr --limit 10
      taqstore diff old.zarr new.zarr latents x
    """
    if group is not None and source is not None:
        raise click.UsageError("--source chooses among statistics: it does not go with a GROUP")
    from taqstore.files.datasets import write_table
    from taqstore.query.diff import diff, movers
    from taqstore.query.sites import slices
    from taqstore.store.reader import open_store

    stores = open_store(first), open_store(second)
    selection = {"layer": layer, "step": step}
    results = diff(*stores, source=source, group=group, variable=variable, selection=selection)
    for name, store in zip((first, second), stores, strict=True):
        say_nonfinite(slices(store, results, selection), where=name)
    table = movers(results, by=by)
    output.give(lambda: [table], partial(write_table, table))

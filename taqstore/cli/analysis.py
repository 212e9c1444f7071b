"""What subcommands of `taqstore analyze` share: options, the run, and the output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from taqstore.cli.common import say_nonfinite, store_argument
from taqstore.cli.output import Output, table_output
from taqstore.cli.scheduler import computing, scheduler_option

SHARED: tuple[Callable[[Any], Any], ...] = (
    store_argument,
    click.option("--source", help="Group prefix [default: first of those in the store]."),
    click.option("--site", "sites", multiple=True, help="attn.qkv, mlp.fc2, … Repeatable."),
    click.option("--layer", help="Glob over layers, or any spelling of one."),
    click.option("--step", help="Step index, or A:B:S."),
    click.option("--batch", help="Observed batches to use: A:B:S."),
    table_output(),
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
    from taqstore.query.analyze import analyze, site_tables, write_results
    from taqstore.query.sites import slices
    from taqstore.store.reader import open_store

    output: Output = given["output"]
    selection = {key: given[key] for key in ("layer", "step", "batch")}
    opened = open_store(given["store"])
    results = analyze(
        name,
        opened,
        source=given["source"],
        sites=given["sites"],
        selection=selection,
        **options,
    )
    say_nonfinite(slices(opened, results, selection))
    with computing(given["scheduler"], given["store"]):
        output.give(partial(site_tables, results), partial(write_results, results))

"""`taqstore diff`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from taqstore.cli import vocabulary
from taqstore.cli.common import say_nonfinite
from taqstore.cli.completed import Named, StoreAddress
from taqstore.cli.output import Output, table_output
from taqstore.cli.scheduler import computing, scheduler_option
from taqstore.cli.talk import Command
from taqstore.files.targets import TABLES

if TYPE_CHECKING:
    from taqstore.store.reader import Store


@click.command("diff", cls=Command)
@click.argument("first", type=StoreAddress())
@click.argument("second", type=StoreAddress())
@click.argument("group", required=False, type=Named(vocabulary.groups, store="first"))
@click.argument("variable", required=False, type=Named(vocabulary.variables, store="first"))
@click.option(
    "--source",
    type=Named(vocabulary.sources, store="first"),
    help="Group prefix [default: first that both have].",
)
@click.option(
    "--analysis",
    type=Named(vocabulary.site_analyses),
    help="Compare GROUP of FIRST with this analysis of SECOND (analyze --help lists them).",
)
@click.option(
    "--option",
    "given",
    multiple=True,
    type=Named(vocabulary.settings),
    metavar="NAME=VALUE",
    help="Of --analysis, like strength=0.7. Repeatable.",
)
@click.option(
    "--weights",
    type=Named(vocabulary.weight_sets, store="second"),
    metavar="SET",
    help="Weight set of SECOND, for --analysis [default: the only one].",
)
@click.option(
    "--by",
    type=Named(vocabulary.columns_of_diff),
    help="Column to order by [default: jensen_shannon, where there is one].",
)
@click.option(
    "--layer",
    type=Named(vocabulary.layers, commas=True, store="first"),
    help="Glob over layers, or any spelling of one.",
)
@click.option("--step", help="Step index, or A:B:S.")
@table_output(suffixes=TABLES, limit=20, only="file")
@scheduler_option
def command(
    first: str,
    second: str,
    group: str | None,
    variable: str | None,
    source: str | None,
    analysis: str | None,
    given: tuple[str, ...],
    weights: str | None,
    by: str | None,
    layer: str | None,
    step: str | None,
    output: Output,
    scheduler: str,
) -> None:
    """Compare stores FIRST and SECOND per layer and step, biggest movers first.

    Ratios of ranges, drift of shifts, Jensen-Shannon divergence and 1-Wasserstein distance of
    histograms. With GROUP and VARIABLE, any variable label by label; with --analysis, what came
    from elsewhere beside what taqstore makes of the same site. VARIABLE may be theirs=ours.

    \b
    Examples:
      taqstore diff old.zarr new.zarr --limit 10
      taqstore diff old.zarr new.zarr latents x
      taqstore diff theirs.zarr run.zarr pooled/quant_config/mlp.fc1 scale=alpha --analysis scales
    """
    if group is not None and source is not None:
        raise click.UsageError("--source chooses among statistics: it does not go with a GROUP")
    if given and analysis is None:
        raise click.UsageError("--option is one of --analysis: name it")
    if weights is not None and analysis is None:
        raise click.UsageError("--weights is for --analysis: name it")
    if analysis is not None and variable is None:
        raise click.UsageError("--analysis compares one variable: give GROUP and VARIABLE")
    if analysis is not None and source is not None:
        raise click.UsageError("--analysis compares one GROUP: leave --source out")
    from taqstore.files.datasets import write_table
    from taqstore.names import site_of
    from taqstore.query.diff import diff, diff_analysis, movers
    from taqstore.query.sites import choose_groups, slices
    from taqstore.store.reader import open_store

    stores = open_store(first), open_store(second)
    selection = {"layer": layer, "step": step}
    with computing(scheduler, first, second):
        if analysis is None:
            asked: dict[str, Any] = {"source": source, "group": group, "variable": variable}
            results = diff(*stores, selection=selection, **asked)
            heard = [list(results), list(results)]
        else:
            texts = dict(text.partition("=")[::2] for text in given)
            asked = _options(stores[1], analysis, texts, weights)
            results = diff_analysis(*stores, group=str(group), variable=str(variable),
                                    analysis=analysis, selection=selection, **asked)  # fmt: skip
            heard = [list(results), choose_groups(stores[1], None, sites=[site_of(str(group))])]
        for name, store, paths in zip((first, second), stores, heard, strict=True):
            say_nonfinite(slices(store, paths, selection), where=name)
        table = movers(results, by=by)
        output.give(lambda: [table], partial(write_table, table))


def _options(
    second: Store, analysis: str, texts: Mapping[str, str], weights: str | None
) -> dict[str, Any]:
    """Options of an analysis, with the weights of the second store where it needs any."""
    from taqstore.analysis.table import ANALYSES
    from taqstore.asked import word_of
    from taqstore.cli.analysis import weights_of_store
    from taqstore.query.texts import read_options

    word_of(analysis, ANALYSES, "analysis")
    options = read_options(analysis, texts)
    if any(option.type == "weights" for option in ANALYSES[analysis].options):
        options["weights"] = weights_of_store(second, weights)
    elif weights is not None:
        raise click.UsageError(f"{analysis} takes no --weights")
    return options

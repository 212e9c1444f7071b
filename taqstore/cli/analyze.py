"""`taqstore analyze NAME STORE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from taqstore.cli.common import json_option, say, store_argument

_SHARED: tuple[Callable[[Any], Any], ...] = (
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
)


@click.group("analyze")
def command() -> None:
    """Compute an analysis from STORE; nothing is run again.

    Works on observed and on pooled statistics, lazily. Print it, or write it with -o.
    """


def _analysis(*options: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Register a subcommand with its own options and the shared ones."""

    def register(function: Callable[..., None]) -> click.Command:
        decorated: Any = function
        for option in reversed((*_SHARED, *options)):
            decorated = option(decorated)
        return command.command(function.__name__)(decorated)

    return register


_BITS = click.option("--bits", type=click.IntRange(2, 16), default=8, show_default=True)
_MOMENTUM = click.option(
    "--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.95, show_default=True
)


@_analysis(
    _BITS,
    click.option("--symmetric/--affine", default=True, show_default=True),
    click.option(
        "--clip", type=click.Choice(["absmax", "percentile"]), default="absmax", show_default=True
    ),
    click.option("--percentile", type=float, default=99.9, show_default=True),
    click.option(
        "--per", type=click.Choice(["tensor", "channel"]), default="tensor", show_default=True
    ),
    click.option("--narrow-range", is_flag=True, help="Leave out the smallest integer."),
)
def scales(**given: Any) -> None:
    """Clip bounds, step sizes and zero points for every step and layer."""
    _run("scales", given, "bits", "symmetric", "clip", "percentile", "per", "narrow_range")


@_analysis(_MOMENTUM)
def shifts(**given: Any) -> None:
    """Channel shifts (EMA of midpoints over batches) and the ranges they leave."""
    _run("shifts", given, "momentum")


@_analysis(
    click.option("--threshold", type=float, default=2.5, show_default=True),
    click.option("--at-step", "at_step", type=int, help="Step of the rule [default: middle]."),
    click.option("--top-fraction", type=float, default=0.02, show_default=True),
)
def outliers(at_step: int | None, **given: Any) -> None:
    """Outlier channels by multiple of the median range, with their multipliers."""
    _run(
        "outliers", {**given, "outlier_step": at_step}, "threshold", "top_fraction", "outlier_step"
    )


@_analysis()
def temporal(**given: Any) -> None:
    """Drift over the steps: clip bounds, ranges, moments and shifts against sigma."""
    _run("temporal", given)


@_analysis(
    click.option("--a4", type=float, help="4 bits below this clip bound [default: 6]."),
    click.option("--a6", type=float, help="6 bits below this, 8 above [default: 10]."),
    click.option("--shifted-a4", type=float, help="The same for mlp.fc2 [default: 5]."),
    click.option("--shifted-a6", type=float, help="The same for mlp.fc2 [default: 8]."),
    click.option(
        "--clip", type=click.Choice(["absmax", "p999"]), default="absmax", show_default=True
    ),
)
def tiers(**given: Any) -> None:
    """Bits for every step and layer by thresholds (4, 6 or 8)."""
    from taqstore.analysis import Thresholds

    names = ("a4", "a6", "shifted_a4", "shifted_a6")
    chosen = {name: given.pop(name) for name in names}
    limits = Thresholds(**{name: value for name, value in chosen.items() if value is not None})
    _run("tiers", {**given, "thresholds": limits}, "thresholds", "clip")


@_analysis(
    click.option("--rule", type=click.Choice(["poly", "lut"]), default="poly", show_default=True),
    click.option("--cubic-gain", type=float, default=0.15, show_default=True),
    click.option("--quartic-gain", type=float, default=0.10, show_default=True),
)
def schedule(cubic_gain: float, quartic_gain: float, **given: Any) -> None:
    """Clip bounds over sigma: the table, or polynomials fitted to it."""
    from taqstore.analysis import FitRule

    fit = FitRule(cubic_gain=cubic_gain, quartic_gain=quartic_gain)
    _run("schedule", {**given, "fit": fit}, "rule", "fit")


def _run(name: str, given: dict[str, Any], *parameters: str) -> None:
    """Select, analyse site by site, print or write."""
    from taqstore.analyze import analyze
    from taqstore.store import open_store

    if given["as_csv"] + given["as_json"] + (given["output"] is not None) > 1:
        raise click.UsageError("--csv, --json and -o exclude each other")
    options = {("step" if p == "outlier_step" else p): given[p] for p in parameters}
    selection = {key: given[key] for key in ("layer", "step", "batch")}
    results = analyze(
        name,
        open_store(given["store"]),
        source=given["source"],
        sites=given["sites"],
        selection=selection,
        **options,
    )
    if given["output"] is not None:
        _write(results, Path(given["output"]), given["force"])
    else:
        _print(results, given)


def _print(results: dict[str, Any], given: dict[str, Any]) -> None:
    from taqstore.analyze import site_tables
    from taqstore.table import print_table, write_csv, write_json

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
    from taqstore.analyze import write_results

    write_results(results, path, force=force)
    say(f"wrote {path}")

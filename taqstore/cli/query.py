"""`taqstore query`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from taqstore.cli.common import json_option, say, store_argument


@click.command("query")
@store_argument
@click.argument("group")
@click.argument("variable", nargs=-1)
@click.option("--layer", help="Glob over layers (mm*.img), or any spelling of one.")
@click.option("--step", help="Step index, or A:B:S as Python's range (B left out).")
@click.option("--sigma", help="LO:HI, both ends included; either may be left out.")
@click.option("--image", help="Image id, or A:B:S.")
@click.option("--batch", help="Batch, or A:B:S.")
@click.option("--channel", help="Channel, or A:B:S.")
@click.option("--stream", help="img, txt or uni.")
@click.option("--block", help="Block (mm3, 3), glob, or A:B on block streams.")
@click.option(
    "--reduce",
    "reductions",
    multiple=True,
    metavar="DIM=HOW",
    help="HOW is max, min, mean, std, median or pNN. Repeatable, in order.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with exact floats.")
@json_option
@click.option("--limit", default=40, show_default=True, help="Rows of a printed table; 0: all.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=True), help="FILE.nc, .zarr, .parquet or .csv."
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
def command(
    store: str,
    group: str,
    variable: tuple[str, ...],
    reductions: tuple[str, ...],
    as_csv: bool,
    as_json: bool,
    limit: int,
    output: str | None,
    force: bool,
    **selection: str | None,
) -> None:
    """Slice GROUP of STORE, reduce it, print it or write it to a file.

    Without VARIABLE, every variable of the group. Nothing is read but what is asked for.

    \b
    Examples:
      taqstore query run.zarr pooled/timestep_stats/mlp.fc2 avg_max \\
          --layer mm0.img --reduce channel=max
      taqstore query run.zarr latents x --image 0 --step 0:10 -o x.nc
    """
    if as_csv + as_json + (output is not None) > 1:
        raise click.UsageError("--csv, --json and -o exclude each other")
    from taqstore.names import site_of
    from taqstore.query.select import reduce, select
    from taqstore.store.reader import open_store

    dataset = _variables(open_store(store), group, variable)
    site = site_of(group) if "layer" in dataset.coords else ""
    dataset = reduce(select(dataset, site=site, **selection), *reductions)
    if dataset.attrs.get("dropped"):
        say(f"note: not numeric, left out: {dataset.attrs['dropped']}")
    if output is not None:
        _write(dataset, Path(output), force)
    else:
        _print(dataset, as_csv, as_json, limit)


def _variables(store: Any, group: str, names: tuple[str, ...]) -> Any:
    from taqstore.errors import MissingError, problem

    dataset = store[group]
    unknown = [name for name in names if name not in dataset.variables]
    if unknown:
        raise MissingError(
            problem(
                f"no variable {unknown[0]!r}",
                where=group,
                found=", ".join(map(str, dataset.data_vars)),
            )
        )
    return dataset[list(names)] if names else dataset


def _print(dataset: Any, as_csv: bool, as_json: bool, limit: int) -> None:
    from taqstore.files.tables import print_table, to_table, to_tables, write_csv, write_json

    if as_csv:
        write_csv(to_table(dataset), sys.stdout)
    elif as_json:
        write_json(to_tables(dataset), sys.stdout)
    else:
        for number, table in enumerate(to_tables(dataset)):
            click.echo("" if number == 0 else "\n", nl=False)
            print_table(table, limit)


def _write(dataset: Any, path: Path, force: bool) -> None:
    from taqstore.files.datasets import write_file

    write_file(dataset, path, force=force)
    say(f"wrote {path}")

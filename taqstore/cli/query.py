"""`taqstore query`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from taqstore.cli import vocabulary
from taqstore.cli.common import say, say_nonfinite, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.output import Output, table_output
from taqstore.cli.scheduler import computing, in_process, scheduler_option
from taqstore.cli.several import addresses, open_asked, with_others
from taqstore.cli.talk import Command


@click.command("query", cls=Command)
@store_argument
@with_others
@click.argument("group", type=Named(vocabulary.groups))
@click.argument("variable", nargs=-1, type=Named(vocabulary.variables))
@click.option(
    "--layer",
    type=Named(vocabulary.layers, commas=True),
    help="Glob over layers (mm*.img), or any spelling of one.",
)
@click.option("--step", help="Step index, or A:B:S as Python's range (B left out).")
@click.option("--sigma", help="LO:HI, both ends included; either may be left out.")
@click.option("--image", help="Image id, or A:B:S.")
@click.option("--batch", help="Batch, or A:B:S.")
@click.option("--channel", help="Channel, or A:B:S.")
@click.option("--stream", type=Named(vocabulary.streams, commas=True), help="img, txt or uni.")
@click.option(
    "--block",
    type=Named(vocabulary.blocks, commas=True),
    help="Block (mm3, 3), glob, or A:B on block streams.",
)
@click.option(
    "--reduce",
    "reductions",
    multiple=True,
    type=Named(vocabulary.reductions),
    metavar="DIM=HOW",
    help="HOW is max, min, mean, std, median or pNN. Repeatable, in order.",
)
@table_output()
@scheduler_option
def command(
    store: str,
    group: str,
    variable: tuple[str, ...],
    reductions: tuple[str, ...],
    output: Output,
    scheduler: str,
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
    from taqstore.query.reduction import parts_of, reduce

    for spec in reductions:
        parts_of(spec)
    opened, asked = open_asked(store), _Asked(group, variable, selection)
    if (
        output.path is None
        and in_process(scheduler)
        and _plainly(opened, asked, reductions, output)
    ):
        return
    dataset = asked.of(opened)
    if reductions:
        dataset = reduce(dataset, *reductions)
    with computing(scheduler, *addresses(store)):
        _give(output, asked, opened, dataset)


@dataclass(frozen=True)
class _Asked:
    """What is chosen of a store, whose groups are those of xarray or not."""

    group: str
    variables: tuple[str, ...]
    selection: Mapping[str, str | None]

    def of(self, groups: Any) -> Any:
        """The selection."""
        from taqstore.query.sites import variables_of

        return self.narrowed(variables_of(groups, self.group, self.variables))

    def narrowed(self, dataset: Any) -> Any:
        """A group, selected as the one that is asked."""
        from taqstore.names import site_of
        from taqstore.query.select import select

        site = site_of(self.group) if "layer" in dataset.coords else ""
        return select(dataset, site=site, **self.selection)


def _plainly(opened: Any, asked: _Asked, reductions: tuple[str, ...], output: Output) -> bool:
    """Answer without xarray, whose import takes longer than a few rows; False where it cannot."""
    from taqstore.arrays.plain import PlainGroups
    from taqstore.query.plain_reductions import one_block
    from taqstore.query.reduction import parts_of, reduce_plain

    groups = PlainGroups(opened)
    chosen = asked.of(groups)
    if not one_block(chosen, [parts_of(spec)[0] for spec in reductions]):
        return False
    _give(output, asked, groups, reduce_plain(chosen, *reductions))
    return True


def _give(output: Output, asked: _Asked, groups: Any, dataset: Any) -> None:
    from taqstore.files.tables import one_columns, to_columns
    from taqstore.kinds.nonfinite import counted

    if (counting := counted(asked.group.strip("/"))) in groups:
        say_nonfinite({counting: asked.narrowed(groups[counting])})
    if dataset.attrs.get("dropped"):
        say(f"note: not numeric, left out: {dataset.attrs['dropped']}")
    # CSV is one table: variables of several kinds are refused there.
    tables = (lambda: [one_columns(dataset)]) if output.as_csv else partial(to_columns, dataset)
    output.give(tables, partial(_write, dataset))


def _write(dataset: Any, path: Any, *, force: bool) -> None:
    """Write a selection in blocks, however large."""
    from taqstore.arrays.dask_blocks import behind_dask
    from taqstore.files.datasets import write_file

    write_file(behind_dask(dataset), path, force=force)

"""Which groups of a store a figure is drawn from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.plot import FIGURES, render
from taqstore.plot.sources import EXTREMA, first_complete
from taqstore.plot.summary import layer_summary
from taqstore.table import print_table, to_table, write_csv

# Post-GELU statistics first: they are what the five figures were made for and hold most moments.
PREFERENCE = (
    "pooled/postgelu",
    "activations",
    "pooled/timestep_stats",
    "pooled/activation_stats_v1",
)


def draw(
    kind: str,
    groups: Mapping[str, xr.Dataset],
    out: str | os.PathLike[str],
    *,
    group: str | None = None,
    layers: Sequence[str] | None = None,
    formats: Sequence[str] = ("png",),
) -> tuple[list[Path], list[str]]:
    """Draw one kind of figure from the groups that can show it.

    Parameters
    ----------
    kind
        Key of `plot.FIGURES`, or ``summary`` for the table.
    group
        Group path; by default every site of the first source in `PREFERENCE` that can show it.
    layers
        Spellings or globs; sites without such a layer are passed over.

    Returns
    -------
    Files written, and notes on what was passed over.

    Raises
    ------
    MissingError
        No group can show it, or none has the layers.
    """
    paths = [group] if group else _choose(kind, groups)
    written: list[Path] = []
    passed: list[str] = []
    for path in paths:
        site = path.rsplit("/", 1)[-1]
        try:
            if kind == "summary":
                written.append(_summarize(groups[path], site, Path(out), layers))
            else:
                written += render(
                    kind, groups[path], out, layers=layers, site=site, formats=formats
                )
        except MissingError as error:
            passed.append(str(error))
    if not written:
        raise MissingError(passed[0])
    return written, passed if layers is None else []


def _choose(kind: str, groups: Mapping[str, xr.Dataset]) -> list[str]:
    requires = EXTREMA if kind == "summary" else FIGURES[kind].requires
    for prefix in PREFERENCE:
        sites = [path for path in groups if path.rsplit("/", 1)[0] == prefix]
        able = [path for path in sites if first_complete(groups[path], requires)]
        if able:
            return able
    raise MissingError(
        problem(
            f"no group can show {kind!r}",
            found=", ".join(groups) or "an empty store",
            remedy="ingest activation statistics first",
        )
    )


def _summarize(dataset: xr.Dataset, site: str, out: Path, layers: Sequence[str] | None) -> Path:
    table = to_table(layer_summary(dataset, site=site, layers=layers).compute())
    print_table(table, limit=0)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"summary_{site}.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_csv(table, stream)
    return path

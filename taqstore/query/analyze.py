"""Analyses over a store: choose the groups, slice, analyse site by site, lay out as tables."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dask
import pandas as pd
import xarray as xr

from taqstore.analysis.table import ANALYSES
from taqstore.errors import MissingError, TaqError, problem
from taqstore.faces import named
from taqstore.files.tables import to_tables
from taqstore.names import dimension_order, parse_layer
from taqstore.query.select import select

if TYPE_CHECKING:
    from os import PathLike

# Observations before what arrived reduced: any rule can be worked out from them.
PREFERENCE = (
    "activations",
    "pooled/timestep_stats",
    "pooled/activation_stats_v1",
    "pooled/postgelu",
    "pooled/lut_schedule",
)
Results = dict[str, xr.Dataset]
Key = TypeVar("Key")


def analyze(
    name: str,
    groups: Mapping[str, xr.Dataset],
    *,
    source: str | None = None,
    sites: Sequence[str] = (),
    selection: Mapping[str, str | None] | None = None,
    **options: Any,
) -> Results:
    """Run one analysis on every site of a source; lazy.

    Parameters
    ----------
    name
        Word of `analysis.ANALYSES`.
    groups
        A store, or any mapping of group paths to Datasets.
    source
        Group prefix; by default the first of `PREFERENCE` the store has.
    sites
        Sites to keep; all if empty.
    selection
        Options of `query.select`; sites without the layer are left out.
    options
        Options of the analysis.

    Returns
    -------
    Group path -> result.

    Raises
    ------
    MissingError
        No such analysis, source, site or layer, or statistics that lack a variable.
    """
    if name not in ANALYSES:
        raise MissingError(problem(f"no analysis {name!r}", found=", ".join(ANALYSES)))
    row = ANALYSES[name]
    if row.joint:
        slices = _selected(groups, source, sites, selection or {})
        together: Results = named(row.joint)(slices, **options)
        return together
    function = row.load()
    takes_site = "site" in inspect.signature(function).parameters
    results: Results = {}
    missing: list[MissingError] = []
    for path in _choose(groups, source, sites, (selection or {}).get("layer")):
        site = path.rsplit("/", 1)[-1]
        known = {"site": site} if takes_site else {}
        try:
            chosen = select(groups[path], site=site, **(selection or {}))
            results[path] = function(chosen, **known, **options)
        except MissingError as error:
            # A shift exists after GELU only: sites that cannot answer are passed over.
            missing.append(error)
    if not results:
        raise missing[0]
    return results


def _selected(
    groups: Mapping[str, xr.Dataset],
    source: str | None,
    sites: Sequence[str],
    selection: Mapping[str, str | None],
) -> Results:
    """Slices of all chosen sites that have the layers asked for."""
    chosen: Results = {}
    missing: list[MissingError] = []
    for path in _choose(groups, source, sites, selection.get("layer")):
        try:
            chosen[path] = select(groups[path], site=path.rsplit("/", 1)[-1], **selection)
        except MissingError as error:
            missing.append(error)
    if not chosen:
        raise missing[0]
    return chosen


def _choose(
    groups: Mapping[str, xr.Dataset], source: str | None, sites: Sequence[str], layer: str | None
) -> list[str]:
    prefixes = {path.rsplit("/", 1)[0] for path in groups}
    known = [p for p in PREFERENCE if p in prefixes]
    prefix = source or next(iter(known), None)
    if prefix is None or prefix not in prefixes:
        raise MissingError(
            problem(
                f"no statistics {source or ''}".rstrip(),
                found=", ".join(known) or "none",
                remedy="ingest activation statistics, or name a --source that is there",
            )
        )
    paths = [path for path in groups if path.rsplit("/", 1)[0] == prefix]
    there = [path.rsplit("/", 1)[-1] for path in paths]
    unknown = [site for site in sites if site not in there]
    if unknown:
        raise MissingError(problem(f"no site {unknown[0]!r}", where=prefix, found=", ".join(there)))
    wanted = set(sites) or _sites_of(layer) or set(there)
    return [path for path in paths if path.rsplit("/", 1)[-1] in wanted]


def _sites_of(layer: str | None) -> set[str]:
    """Sites that layer spellings name (`mm_00_img` is an mlp.fc2 input); globs name none."""
    found = set()
    for text in (layer or "").split(","):
        if text and not any(c in text for c in "*?["):
            found.add(parse_layer(text).site)
    return set() if "" in found else found


def load(results: Mapping[Key, xr.Dataset]) -> dict[Key, xr.Dataset]:
    """Compute lazy results together: what they share once, and with less memory than in turn."""
    # Arrays, not Datasets: dask 2026.8 loses tasks of Datasets whose variables share a kernel.
    lazy = {path: {name: result[name].data for name in result} for path, result in results.items()}
    (values,) = dask.compute(lazy)  # type: ignore[no-untyped-call,attr-defined]
    return {path: result.copy(data=values[path]) for path, result in results.items()}


def site_tables(results: Results) -> list[pd.DataFrame]:
    """Tables of all sites; those that differ in nothing but the site are one, with its column."""
    by_kind: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for path, result in load(results).items():
        for table in to_tables(result):
            dims = [dim for dim in table.attrs["dims"] if dim != "projection"]
            kind = tuple(sorted(dims, key=dimension_order))
            table.insert(0, "site", path.rsplit("/", 1)[-1])
            by_kind.setdefault(kind, []).append(table)
    return [_joined(kind, tables) for kind, tables in by_kind.items()]


def _joined(kind: tuple[str, ...], tables: list[pd.DataFrame]) -> pd.DataFrame:
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    if "projection" in columns:  # beside the layer it belongs to
        columns.remove("projection")
        columns.insert(columns.index("layer") + 1, "projection")
        for table in tables:
            if "projection" not in table:
                table["projection"] = ""
    joined = pd.concat(tables, ignore_index=True)[columns]
    joined.attrs["dims"] = ["site", *kind]
    return joined


def write_results(results: Results, path: str | PathLike[str], *, force: bool = False) -> None:
    """Write results by suffix: tables of all sites, or one site as a Dataset.

    Raises
    ------
    TaqError
        Several sites for .nc or .zarr, several kinds of tables for .csv or .parquet, or the target
        cannot be written.
    """
    from taqstore.files.datasets import write_file, write_table

    target = Path(path)
    if target.suffix in (".csv", ".parquet"):
        tables = site_tables(results)
        if len(tables) > 1:
            raise TaqError(
                problem(
                    f"{target.suffix} holds one table, this analysis makes {len(tables)}",
                    found="; ".join(_described(tables)),
                    remedy="use --json, or --site with -o FILE.nc",
                )
            )
        write_table(tables[0], target, force=force)
        return
    if len(results) > 1:
        raise TaqError(
            problem(
                f"{target.name} holds one site",
                found=", ".join(results),
                remedy="choose one with --site",
            )
        )
    write_file(next(iter(results.values())), target, force=force)


def _described(tables: list[pd.DataFrame]) -> Iterator[str]:
    for table in tables:
        yield " x ".join(table.attrs["dims"])

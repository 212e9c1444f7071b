"""Analyses over a store: choose the groups, slice, analyse site by site, lay out as tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import xarray as xr

from taqstore.analysis.ranges.in_parts import computed
from taqstore.analysis.shared.row import Analysis
from taqstore.analysis.table import ANALYSES
from taqstore.asked import meant, word_of
from taqstore.errors import MisuseError, TaqError, problem
from taqstore.faces import named
from taqstore.files.tables import check_rows, to_tables
from taqstore.names import SECOND_MOMENTS, dimension_order, site_of
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.query.select import select
from taqstore.query.sites import answers, choose_groups, slices
from taqstore.query.whole import ask_whole
from taqstore.store.given import handed, put_behind_dask

if TYPE_CHECKING:
    from os import PathLike

Results = dict[str, xr.Dataset]
Key = TypeVar("Key")


@handed
def analyze(
    name: str,
    groups: Mapping[str, xr.Dataset],
    *,
    source: str | None = None,
    sites: Sequence[str] = (),
    selection: Mapping[str, str | None] | None = None,
    other: Mapping[str, xr.Dataset] | None = None,
    **options: Any,
) -> Results:
    """Run one analysis on every site of a source, or on a whole store; lazy.

    Parameters
    ----------
    name
        Word of `analysis.ANALYSES`.
    groups
        A store, or any mapping of group paths to Datasets.
    source
        Group prefix; by default what analyses prefer of what the store has.
    sites
        Sites to keep; all if empty.
    selection
        Options of `query.select`; sites without the layer are left out.
    other
        Second store, for analyses of two.
    options
        Options of the analysis.

    Returns
    -------
    Group path -> result; of a whole store, name -> result.

    Raises
    ------
    MissingError
        No such source, site or layer, or statistics that lack a variable.
    MisuseError
        No such analysis, or options that make no sense.
    """
    row, chosen = _row_of(name, options), selection or {}
    if row.second == (other is None):
        what = f"{name} {'needs' if row.second else 'takes no'} second store"
        raise MisuseError(what.replace("needs second", "needs a second"))
    if row.whole:
        # A site's analysis puts its group behind dask itself, in blocks of its own.
        stores = [one for one in (groups, other) if one is not None]
        stores = stores if row.late else [put_behind_dask(one) for one in stores]
        return ask_whole(name, stores, {"source": source, "site": sites, **chosen}, options)
    paths = asked_of(name, groups, source, sites, chosen)
    if row.joint:
        together: Results = named(row.joint)(slices(groups, paths, chosen), **options)
        return together
    ask = asking(row.load(), options)
    return answers(
        lambda path: ask(path, select(groups[path], site=site_of(path), **chosen)), paths
    )


def asked_of(
    name: str,
    groups: Mapping[str, xr.Dataset],
    source: str | None,
    sites: Sequence[str],
    selection: Mapping[str, str | None],
) -> list[str]:
    """Paths of the sites that an analysis is asked of; parameters and errors as of `analyze`."""
    row = ANALYSES[name]
    _check_summed(name, row.source or source, selection)
    return choose_groups(groups, source or row.source, sites=sites, layer=selection.get("layer"))


def asking(
    function: Callable[..., xr.Dataset], options: Mapping[str, Any]
) -> Callable[[str, xr.Dataset], xr.Dataset]:
    """An analysis with its options as a function of the path and the Dataset of a site."""
    takes_site = "site" in inspect.signature(function).parameters

    def ask(path: str, dataset: xr.Dataset) -> xr.Dataset:
        known = {"site": site_of(path)} if takes_site else {}
        return function(dataset, **known, **options)

    return ask


def _row_of(name: str, options: Mapping[str, Any]) -> Analysis:
    word_of(name, ANALYSES, "analysis")
    _check_names(name, options)
    return ANALYSES[name]


# What second moments are sums over, or hold pairs of: none of them can be told apart again.
_SUMMED = ("step", "sigma", "channel")


def _check_summed(name: str, source: str | None, chosen: Mapping[str, str | None]) -> None:
    asked = [word for word in _SUMMED if chosen.get(word) is not None]
    if source == SECOND_MOMENTS and asked:
        what = f"{name} cannot choose by {asked[0]}: second moments are sums of whole tensors"
        raise MisuseError(problem(what, remedy=f"leave --{asked[0]} out"))


# What `analyze` itself takes besides the options of an analysis.
_CHOOSING = ("source", "sites", "selection", "other")


def _check_names(name: str, options: Mapping[str, Any]) -> None:
    known = inspect.signature(ANALYSES[name].load()).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        own = [option.name for option in ANALYSES[name].options]
        remedy = meant(unknown[0], [*own, *_CHOOSING])
        raise MisuseError(problem(f"{name} takes no {unknown[0]}", remedy=remedy))


def load(results: Mapping[Key, xr.Dataset]) -> dict[Key, xr.Dataset]:
    """Compute lazy results together: what they share once, and with less memory than in turn."""
    if not any(array.chunks for result in results.values() for array in result.values()):
        return {path: result.load() for path, result in results.items()}
    # Arrays, not Datasets: dask 2026.8 loses tasks of Datasets whose variables share a kernel.
    lazy = {path: {name: result[name].data for name in result} for path, result in results.items()}
    values = computed(lazy)
    return {path: result.copy(data=values[path]) for path, result in results.items()}


@handed
def site_tables(results: Results) -> list[pd.DataFrame]:
    """Tables of all sites; those that differ in nothing but the site are one, with its column."""
    return _tables(results, "site")


def whole_tables(results: Results) -> list[pd.DataFrame]:
    """Tables of whole stores: with a column `name` where there are several results."""
    return _tables(results, "name" if len(results) > 1 else "")


def _tables(results: Results, column: str) -> list[pd.DataFrame]:
    by_kind: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for result in results.values():
        check_rows(result)
    for path, result in load(results).items():
        for table in to_tables(result):
            dims = [dim for dim in table.attrs["dims"] if dim != "projection"]
            kind = tuple(sorted(dims, key=dimension_order))
            if column:
                table.insert(0, column, site_of(path) if column == "site" else path)
            by_kind.setdefault(kind, []).append(table)
    key = [column] if column else []
    return [_joined([*key, *kind], tables) for kind, tables in by_kind.items()]


def _joined(dims: list[str], tables: list[pd.DataFrame]) -> pd.DataFrame:
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    if "projection" in columns:  # beside the layer it belongs to
        columns.remove("projection")
        columns.insert(columns.index("layer") + 1, "projection")
        for table in tables:
            if "projection" not in table:
                table["projection"] = ""
    joined = pd.concat(tables, ignore_index=True)[columns]
    beside = [name for table in tables for name in table.attrs["beside"]]
    joined.attrs |= {"dims": dims, "beside": list(dict.fromkeys(beside))}
    return joined


@takes_storage_options
@handed
def write_results(
    results: Results,
    path: str | PathLike[str],
    *,
    force: bool = False,
    whole: bool = False,
    storage_options: StorageOptions | None = None,
) -> None:
    """Write results by suffix: tables of all, or one as a Dataset.

    Parameters
    ----------
    whole
        Results of whole stores, not of sites.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    TaqError
        Several results for .nc or .zarr, several kinds of tables for .csv or .parquet, or the
        target cannot be written.
    """
    from taqstore.files.datasets import write_file, write_table

    target = Path(path)
    if target.suffix in (".csv", ".parquet"):
        tables = (whole_tables if whole else site_tables)(results)
        if len(tables) > 1:
            file = "" if whole and len(results) > 1 else ", or -o FILE.nc"
            raise TaqError(
                problem(
                    f"{target.suffix} holds one table, this analysis makes {len(tables)}",
                    found="; ".join(_described(tables)),
                    remedy=f"use --json{file if whole else file.replace('-o', '--site with -o')}",
                )
            )
        write_table(tables[0], target, force=force)
        return
    if len(results) > 1:
        raise TaqError(
            problem(
                f"{target.name} holds one {'result' if whole else 'site'}",
                found=", ".join(results),
                remedy="use --json" if whole else "choose one with --site",
            )
        )
    write_file(next(iter(results.values())), target, force=force)


def _described(tables: list[pd.DataFrame]) -> Iterator[str]:
    for table in tables:
        yield " x ".join(table.attrs["dims"])

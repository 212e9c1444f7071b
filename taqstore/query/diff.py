"""Two stores compared group by group, as Datasets and as a table of the biggest movers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.analysis.difference import difference, variable_difference
from taqstore.analysis.shared.inputs import require
from taqstore.analysis.table import ANALYSES
from taqstore.asked import listed, meant
from taqstore.errors import MissingError, MisuseError, TaqError, problem
from taqstore.kinds.statistics_sources import preferred
from taqstore.names import site_of
from taqstore.query.analyze import Results, analyze, site_tables
from taqstore.query.columns import BY
from taqstore.query.select import select
from taqstore.query.sites import answers, first_source, meant_source
from taqstore.store.given import handed

if TYPE_CHECKING:
    from collections.abc import Sequence

_RATIOS = ("range_ratio", "alpha_ratio")


@handed(blocks=True)
def diff(
    first: Mapping[str, xr.Dataset],
    second: Mapping[str, xr.Dataset],
    *,
    source: str | None = None,
    group: str | None = None,
    variable: str | None = None,
    selection: Mapping[str, str | None] | None = None,
) -> Results:
    """Differences of every group of one source that both stores have; lazy.

    Parameters
    ----------
    first, second
        Stores, or any mappings of group paths to Datasets.
    source
        Group prefix; by default what analyses prefer of what both have.
    group
        One group instead of all of a source.
    variable
        Compare this variable of `group` label by label, whatever it is.
    selection
        Options of `query.select`.

    Returns
    -------
    Group path -> result of `difference` or `variable_difference`.

    Raises
    ------
    MissingError
        Nothing to compare.
    """

    def ask(path: str) -> xr.Dataset:
        site = site_of(path)
        a, b = (select(side[path], site=site, **(selection or {})) for side in (first, second))
        return difference(a, b) if variable is None else variable_difference(a, b, variable)

    return answers(ask, [group] if group else _common(first, second, source))


def diff_analysis(
    first: Mapping[str, xr.Dataset],
    second: Mapping[str, xr.Dataset],
    *,
    group: str,
    variable: str,
    analysis: str,
    selection: Mapping[str, str | None] | None = None,
    **options: Any,
) -> Results:
    """A variable of a group, beside what an analysis says of the second store's same site; lazy.

    Parameters
    ----------
    group
        Of the first store, for example `pooled/smoothquant_scales/mlp.fc2`.
    variable
        Of both; ``scale=alpha`` compares `scale` of the group with the analysis' `alpha`.
    analysis
        Word of `analysis.ANALYSES`; the source is the one that analyses prefer.
    options
        Of the analysis.

    Raises
    ------
    MissingError
        No such group, site, analysis or variable.
    TaqError
        Options that the analysis does not have, or that do not go together.
    """
    theirs, _, named = variable.partition("=")
    ours, site, chosen = named or theirs, site_of(group), selection or {}
    known = option_names(analysis)
    unknown = [o for o in options if o not in known]
    if unknown:
        what = f"{analysis} has no option {unknown[0]!r}"
        raise TaqError(problem(what, remedy=meant(unknown[0], known)))
    side = select(first[group], site=site, **chosen)
    (result,) = analyze(analysis, second, sites=[site], selection=chosen, **options).values()
    require(side, (theirs,), analysis="diff")
    require(result, (ours,), analysis=analysis)
    again = result[[ours]].rename({ours: theirs})
    again.attrs |= result.attrs
    return {group: variable_difference(side, again, theirs)}


def option_names(analysis: str) -> tuple[str, ...]:
    """Options of an analysis that a comparison takes.

    Raises
    ------
    MissingError
        No such analysis.
    MisuseError
        It is of whole stores.
    """
    known = [name for name, row in ANALYSES.items() if not row.whole]
    if analysis in ANALYSES and analysis not in known:
        what = f"{analysis} is of whole stores: it has nothing to set beside a site"
        raise MisuseError(problem(what, found=", ".join(known)))
    if analysis not in ANALYSES:
        raise MissingError(problem(f"no analysis {analysis!r}", remedy=meant(analysis, known)))
    return tuple(option.name for option in ANALYSES[analysis].options if not option.bundle)


def _common(
    first: Mapping[str, xr.Dataset], second: Mapping[str, xr.Dataset], source: str | None
) -> list[str]:
    both = [path for path in first if path in second]
    found = first_source(both, [source] if source else preferred("analyses"))
    if not found:
        raise MissingError(
            problem(
                f"the two stores have no statistics {source or ''} in common".replace("  ", " "),
                found=listed(both),
                remedy=meant_source(both, source) or "name a GROUP and a VARIABLE that both have",
            )
        )
    return found


@handed
def movers(results: Results, *, by: str | None = None) -> pd.DataFrame:
    """One table of all results, what moved most in front; rows that are unknown come last.

    Parameters
    ----------
    by
        Column to order by; by default the first of `BY` that is there. Ratios count as far from 1
        in either direction.

    Raises
    ------
    MissingError
        There is no such column.
    """
    tables = site_tables(results)
    table = pd.concat(tables, ignore_index=True)
    numeric = [c for c in table.columns if table[c].dtype.kind == "f"]
    chosen = by or next((name for name in BY if name in numeric), "")
    if chosen not in numeric:
        raise MissingError(problem(f"no column {chosen!r}", remedy=meant(chosen, numeric)))
    order = _far(table[chosen].to_numpy(np.float64), is_ratio=chosen in _RATIOS)
    ordered = table.iloc[np.argsort(-order, kind="stable")].reset_index(drop=True)
    beside = [name for one in tables for name in one.attrs["beside"]]
    ordered.attrs |= {"dims": _dims(results), "beside": list(dict.fromkeys(beside))}
    return ordered


def _far(values: np.ndarray, *, is_ratio: bool) -> np.ndarray:
    if is_ratio:
        with np.errstate(divide="ignore", invalid="ignore"):  # a range that vanished
            values = np.abs(np.log(values))
    return np.where(np.isnan(values), -np.inf, values)


def _dims(results: Results) -> Sequence[str]:
    dims = dict.fromkeys(str(dim) for result in results.values() for dim in result.dims)
    return ["site", *dims]

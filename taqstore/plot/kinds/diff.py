"""Heat maps of what differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import Colormap, Normalize

from taqstore.analysis.difference import difference
from taqstore.errors import MissingError, problem
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.grid import each_site, site_grid, site_table
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import linear_view

LABELS = {
    "range_log2": "log2 of the tensor range, second store over first",
    "jensen_shannon": "Jensen-Shannon divergence of the histograms (bit)",
}
TITLES = {"range_log2": "change of ranges", "jensen_shannon": "change of distributions"}


def diff_pages(
    groups: Mapping[str, xr.Dataset], *, other: Mapping[str, xr.Dataset]
) -> Iterator[Page]:
    """Up to two pages, ranges and distributions: a panel per site and stream.

    Raises
    ------
    MissingError
        `other` has none of the groups; or, once the others are drawn, a site cannot be compared.
    """
    common = {path: (dataset, other[path]) for path, dataset in groups.items() if path in other}
    if not common:
        what = "the second store has none of these groups"
        raise MissingError(problem(what, where="plot diff", found=", ".join(other) or "none"))
    sites, missing = each_site(common, lambda pair, site: diff_data(*pair, site=site))
    for name in LABELS:
        having = {site: data[[name]] for site, data in sites.items() if name in data}
        if having:
            yield _page(name, having)
    if missing:
        raise missing[0]


def diff_data(first: xr.Dataset, second: xr.Dataset, *, site: str = "") -> xr.Dataset:
    """What `analysis.difference` finds, (step, layer).

    Returns
    -------
    Dataset
        `range_log2`, log2 of the ratio of tensor ranges, and `jensen_shannon` in bits; whichever
        both groups have the statistics for.

    Raises
    ------
    MissingError
        No step or layer in common, no statistics, or no values in them.
    LayoutError
        The channels differ.
    """
    found = difference(first, second)
    chosen: dict[str, xr.DataArray] = {}
    if "range_ratio" in found:
        ratio = found["range_ratio"].compute()
        with np.errstate(divide="ignore"):  # a range that vanished is infinitely far
            chosen["range_log2"] = ratio.copy(data=np.log2(ratio.values))
    if "jensen_shannon" in found:
        chosen["jensen_shannon"] = found["jensen_shannon"]
    view = linear_view(xr.Dataset(chosen), list(chosen), site=site).compute()
    if not any(np.isfinite(array).any() for array in view.data_vars.values()):
        raise MissingError(problem("the two stores have no values to compare", where="plot diff"))
    return view


def diff_style(variable: str, values: np.ndarray) -> tuple[Normalize, Colormap]:
    """Ratios diverge about 0, where nothing changed; divergences count from 0."""
    bound = float(abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    if variable == "range_log2":
        return Normalize(-bound, bound), mpl.colormaps["RdBu_r"].with_extremes(bad="0.85")
    return Normalize(0.0, bound), mpl.colormaps["viridis"].with_extremes(bad="0.85")


def _page(name: str, sites: Mapping[str, xr.Dataset]) -> Page:
    values = np.concatenate([data[name].values.ravel() for data in sites.values()])
    style = diff_style(name, values)
    draw = partial(figures.draw_heatmap, variable=name, style=style)
    figure = site_grid(sites, draw, style, LABELS[name])
    figure.suptitle(f"{TITLES[name]} from the first store to the second")
    return Page(f"diff_{name}", figure, site_table(sites))

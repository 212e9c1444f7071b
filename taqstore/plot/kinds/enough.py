"""How many images are enough: what four times as many would change, measured and fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taqstore.analysis.enough import enough
from taqstore.plot.parts.grid import each_site
from taqstore.plot.parts.panels import Page

TOLERANCE = 0.02
_LEAST = 1e-4
CURVES = ("move", "fitted_move", "deviation", "deviation_low", "deviation_high", "site_enough")


def enough_pages(groups: Mapping[str, xr.Dataset]) -> Iterator[Page]:
    """One page: the move of clip bounds and their deviation from all images, a line per site."""
    import pandas as pd

    found, _ = each_site(groups, lambda group, site: enough_data(group))
    tables = [
        data.drop_vars("site_enough").to_dataframe().reset_index()
        .assign(site=site, enough=float(data["site_enough"]))
        for site, data in found.items()
    ]  # fmt: skip
    joined = pd.concat(tables, ignore_index=True)
    yield Page("enough", _figure(found), joined[["site", *joined.columns.drop("site")]])


def enough_data(group: xr.Dataset) -> xr.Dataset:
    """What `analysis.enough` says of absmax bounds, (size), and `site_enough`.

    Raises
    ------
    MissingError
        There are no batches, or too few.
    """
    return enough(group, tolerance=TOLERANCE)[list(CURVES)].compute()


def draw_move(sites: Mapping[str, xr.Dataset], ax: Axes) -> Axes:
    """Move against the number of batches: points are measured, lines fitted, both axes log."""
    for site, data, color in _each(sites):
        ax.plot(data["size"], data["fitted_move"], "-", color=color, linewidth=1.2, label=site)
        ax.plot(data["size"], data["move"], "o", color=color, markersize=4)
    ax.axhline(TOLERANCE, color="0.3", linewidth=0.8, linestyle="--")
    return _log_axes(ax, "what 4 times as many would change (relative)")


def draw_deviation(sites: Mapping[str, xr.Dataset], ax: Axes) -> Axes:
    """Deviation of subsets from the answer of all batches; thin lines hold 90 % of them."""
    for _, data, color in _each(sites):
        some = data.isel(size=data["deviation"].values > 0)  # that of all is from itself
        size, low, high = (some[n].values for n in ("size", "deviation_low", "deviation_high"))
        ax.plot(size, some["deviation"], "-o", color=color, linewidth=1.2, markersize=3)
        ax.vlines(size, np.maximum(low, _LEAST), high, color=color, alpha=0.4, linewidth=1)
    ax.axhline(TOLERANCE, color="0.3", linewidth=0.8, linestyle="--")
    return _log_axes(ax, "deviation of subsets from all images (relative)")


def _each(sites: Mapping[str, xr.Dataset]) -> Iterator[tuple[str, xr.Dataset, object]]:
    colors = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, (site, data) in enumerate(sites.items()):
        yield site, data, colors[2 * number % 20 + number // 10 % 2]


def _log_axes(ax: Axes, label: str) -> Axes:
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("batches of images")
    ax.set_ylabel(label)
    return ax


def _figure(sites: Mapping[str, xr.Dataset]) -> Figure:
    figure = Figure(figsize=(10.0, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_move(sites, left)
    draw_deviation(sites, right)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    figure.suptitle(
        f"absmax clip bounds of more images\n(points: measured; lines at the left: fitted; "
        f"dashed: {100 * TOLERANCE:g} %)"
    )
    return figure

"""Channel maps: log2 of the absmax of every channel of one layer at every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from taqstore.errors import MissingError, problem
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page, averaged, each_layer, table
from taqstore.plot.parts.views import extrema, file_name, noise_coordinate

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = 1024
"""Most columns of the map of all channels; beyond it, neighbouring channels share one."""

WIDEST = 40
"""Channels that are shown one by one."""

LABEL = "log2 of absmax (dimensionless; grey: 0 or unknown)"


def channelmap_data(view: xr.Dataset) -> xr.Dataset:
    """Per (step, channel) of the view's only layer: `absmax` over batches, and `log2_absmax`.

    Coordinate `rank` (channel) counts from 0, the largest absmax over all steps; a channel that is
    unknown at a step ranks by the others. `log2_absmax` is NaN where `absmax` is 0 or unknown.

    Raises
    ------
    MissingError
        No channel has a finite absmax above 0.
    """
    pair = extrema(view).isel(layer=0).transpose("step", "channel").compute()
    absmax: xr.DataArray = abs(pair).to_dataarray().max("variable", skipna=False)
    known = absmax.where(np.isfinite(absmax) & (absmax > 0))
    if not known.notnull().any():
        name = str(view["layer"].values[0])
        raise MissingError(problem("no channel has a finite absmax above 0", where=name))
    peak = absmax.max("step").fillna(-1.0).values
    rank = np.empty(len(peak), dtype=np.int64)
    rank[np.argsort(-peak, kind="stable")] = np.arange(len(peak))
    return xr.Dataset(
        {"absmax": absmax, "log2_absmax": np.log2(known)},
        coords={"channel": np.arange(len(peak)), "rank": ("channel", rank)},
        attrs=pair.attrs,
    )


def merged(data: xr.Dataset, *, columns: int = COLUMNS) -> xr.Dataset:
    """The map with at most `columns` columns: the largest of neighbouring channels stands for all.

    `channel` is the first of a column, the coordinate `last_channel` its last.
    """
    count = data.sizes["channel"]
    share = -(-count // columns)
    starts = np.arange(0, count, share)
    tallest = data.drop_vars("rank").coarsen(channel=share, boundary="pad").max()
    last = np.append(starts[1:], count) - 1
    return tallest.assign_coords(channel=starts, last_channel=("channel", last))


def widest_channels(data: xr.Dataset, *, count: int = WIDEST) -> xr.Dataset:
    """The `count` channels of the lowest `rank`, in that order."""
    return data.isel(channel=np.argsort(data["rank"].values)[:count])


def draw_channelmap(
    data: xr.Dataset,
    ax: Axes,
    *,
    edges: np.ndarray | None = None,
    style: tuple[Normalize, Colormap] | None = None,
) -> Axes:
    """`log2_absmax` with channels along x and noise at the top (`channelmap_data`).

    Parameters
    ----------
    edges
        Where columns begin and the last one ends on x; by default every channel is one wide.
    style
        Norm and colours; by default from the finite values.
    """
    values = data["log2_absmax"].transpose("step", "channel").values
    norm, colors = style or channelmap_style(data)
    x = np.arange(data.sizes["channel"] + 1) - 0.5 if edges is None else edges
    y = figures.cell_edges(data)
    # Thousands of cells are a picture even in a vector file.
    ax.pcolormesh(x, y, values, norm=norm, cmap=colors, rasterized=True)
    ax.set_facecolor(figures.MISSING_COLOR)
    ax.set_ylim(y[-1], y[0])
    name, _ = noise_coordinate(data)
    ax.set_ylabel(figures.SIGMA_LABEL if name == "sigma" else figures.STEP_LABEL)
    return ax


def channelmap_style(data: xr.Dataset) -> tuple[Normalize, Colormap]:
    """One scale for all values that are known."""
    values = data["log2_absmax"].values
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return figures.linear_norm(low, high), figures.sequential_colors()


def channelmap_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer: all channels by index above, the `WIDEST` one by one below."""
    return each_layer(view, _page)


def _page(one: xr.Dataset) -> Page:
    data = channelmap_data(one)
    every, some = merged(data), widest_channels(data)
    name = str(one["layer"].values[0])
    return Page(f"channelmap_{file_name(name)}", _figure(name, every, some), _table(every, some))


def _figure(name: str, every: xr.Dataset, some: xr.Dataset) -> Figure:
    figure = Figure(figsize=(11.0, 8.0), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    style, last = channelmap_style(every), every["last_channel"].values
    edges = np.append(every["channel"].values, last[-1] + 1) - 0.5
    draw_channelmap(every, upper, edges=edges, style=style)
    # A tick over a column that is a pixel wide leads the eye to it.
    marks = some["channel"].values
    upper.plot(marks, np.full(len(marks), 1.02), "v", color=figures.OUTLIER_COLOR, markersize=4,
               transform=upper.get_xaxis_transform(), clip_on=False)  # fmt: skip
    share = int(last[0] - every["channel"].values[0]) + 1
    shared = f"; a column is the largest of {share} neighbours" if share > 1 else ""
    upper.set_xlabel(f"channel index ({last[-1] + 1} channels{shared})")
    draw_channelmap(some, lower, style=style)
    lower.set_xticks(np.arange(len(marks)), [str(mark) for mark in marks], rotation=90)
    lower.set_xlabel(f"channel index of the {len(marks)} of largest absmax, largest first")
    figure.colorbar(ScalarMappable(*style), ax=[upper, lower], label=LABEL)
    figure.suptitle(_title(name, every, len(marks)))
    return figure


def _title(name: str, data: xr.Dataset, marked: int) -> str:
    note = f"\n({averaged(data)})" if averaged(data) else ""
    return f"{name}: channels over the steps, red: the {marked} of largest absmax{note}"


def _table(every: xr.Dataset, some: xr.Dataset) -> pd.DataFrame:
    import pandas as pd

    last = ("channel", some["channel"].values)
    alone = some.drop_vars("rank").assign_coords(last_channel=last)
    tables = {"all": table(every), "largest": table(alone)}
    return pd.concat(
        [rows.assign(panel=panel) for panel, rows in tables.items()], ignore_index=True
    )

"""Channel ranges: where the values of each layer's channels lie, outliers in red."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taqstore.analysis import diagnostics
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page, averaged, table
from taqstore.plot.parts.views import extrema, file_name


def channel_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer: ranges by channel index above, widest first below."""
    for index in range(view.sizes["layer"]):
        one = view.isel(layer=[index])
        data = channel_data(one)
        name = str(one["layer"].values[0])
        figure = Figure(figsize=(10.0, 7.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharey=True)
        draw_channels(data, upper, order="channel")
        draw_channels(data, lower, order="rank")
        legend = upper.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
        for line in legend.get_lines():
            line.set_linewidth(3.0)
        figure.suptitle(_title(name, data))
        yield Page(f"channels_{file_name(name)}", figure, table(data))


def channel_data(view: xr.Dataset) -> xr.Dataset:
    """Per channel of the view's only layer: extrema over all steps, and which are outliers.

    Returns
    -------
    Dataset over channel
        `lower`, `upper`, `range`; `rank` (0: widest); `outlier` (among the widest 2 % of the ranges
        shown) and `outlier_steps` (number of steps where the channel is among the widest of that
        step), see `analysis.diagnostics`.
    """
    pair = extrema(view).isel(layer=0).transpose("step", "channel").compute()
    lower, upper = pair["lower"].min("step"), pair["upper"].max("step")
    width = (upper - lower).values
    order = np.argsort(-width, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    found = diagnostics(view)[["widest_overall", "widest_steps"]].isel(layer=0).compute()
    return xr.Dataset(
        {
            "lower": lower,
            "upper": upper,
            "range": ("channel", width),
            "rank": ("channel", rank),
            "outlier": ("channel", found["widest_overall"].values),
            "outlier_steps": ("channel", found["widest_steps"].values),
        },
        coords={"channel": np.arange(len(width))},
        attrs={**pair.attrs, "steps": pair.sizes["step"]},
    )


def draw_channels(data: xr.Dataset, ax: Axes, *, order: str = "channel") -> Axes:
    """Channel ranges as bars, the widest in red (`channel_data`).

    `order` is what runs along x: "channel" (index) or "rank" (widest first).
    """
    for outlier, color in ((False, figures.PLAIN_COLOR), (True, figures.OUTLIER_COLOR)):
        some = data.isel(channel=np.flatnonzero(data["outlier"].values == outlier))
        what = "widest" if outlier else "other"
        ax.vlines(
            some[order].values,
            some["lower"].values,
            some["upper"].values,
            color=color,
            linewidth=max(1.0 if outlier else 0.6, 480.0 / data.sizes["channel"]),
            label=f"{what} {some.sizes['channel']} of {data.sizes['channel']} channels",
        )
    ax.axhline(0.0, color="0.3", linewidth=0.6)
    ax.set_xlim(-1, data.sizes["channel"])
    ax.xaxis.set_major_locator(figures.whole_ticks())
    ax.set_xlabel("channel index" if order == "channel" else "channels, widest first (rank)")
    ax.set_ylabel(figures.VALUE_LABEL)
    return ax


def _title(name: str, data: xr.Dataset) -> str:
    what = "mean channel extrema" if averaged(data) else "channel extrema"
    return f"{name}: {what} over {data.attrs['steps']} steps"

"""Boxes per channel: how the values, or the extremes, of a layer's widest channels spread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from taqstore.errors import MissingError, problem
from taqstore.names import CHANNEL_HISTOGRAMS, EXTREMA
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page, averaged, each_layer, table
from taqstore.plot.parts.views import extrema, file_name, require
from taqstore.statistics.histogram import Layout, quantile

WIDEST = 40
"""Channels that get a box."""

END_COLORS = {"smallest": "#0072B2", "largest": "#E69F00", "values": "#56B4E9"}

_FLAT = 20.0
_LEVELS = {"minimum": 0.0, "low": 0.01, "q1": 0.25, "median": 0.5, "q3": 0.75, "high": 0.99,
           "maximum": 1.0}  # fmt: skip


def box_data(view: xr.Dataset, *, count: int = WIDEST) -> xr.Dataset:
    """Quartiles of the `count` widest channels of the view's only layer, widest first.

    Returns
    -------
    Dataset over (channel, shown)
        `q1`, `median`, `q3`, and the ends of the whiskers `low` and `high`. From channel histograms
        `shown` is "values": all values of the channel, whiskers at 1 % and 99 %, besides `minimum`
        and `maximum`, each within its bin. From extrema it is "smallest" and "largest": the
        channel's finite extremes of every step and batch, whiskers at the outermost of them.

    Raises
    ------
    MissingError
        No channel has a value.
    """
    one = view.isel(layer=[0])
    data = _of_values(one, count) if "channel_histogram" in view else _of_extrema(one, count)
    steps, batches = view.sizes["step"], view.sizes.get("batch", 0)
    return data.assign_attrs(steps=steps, batches=batches, channels=view.sizes["channel"])


def _of_values(one: xr.Dataset, count: int) -> xr.Dataset:
    histogram = one["channel_histogram"]
    layout = Layout(str(histogram.attrs["layout"]), int(histogram.attrs["mantissa_bits"]))
    over = [dim for dim in histogram.dims if dim not in ("layer", "channel", "bin")]
    counts = histogram.isel(layer=0).sum(over, dtype=np.int64).transpose("channel", "bin")
    counted = counts.values
    ends = quantile(counted, layout, [0.0, 1.0])
    channel = _widest(ends[:, 1] - ends[:, 0], count, one)
    levels = quantile(counted[channel], layout, list(_LEVELS.values()))
    quartiles = {name: (("channel",), levels[:, k]) for k, name in enumerate(_LEVELS)}
    data = xr.Dataset(quartiles, coords={"channel": channel})
    return data.expand_dims(shown=["values"], axis=1).assign_attrs(
        mantissa_bits=layout.mantissa_bits
    )


def _of_extrema(one: xr.Dataset, count: int) -> xr.Dataset:
    low, high = require(one, EXTREMA, where="plot box")
    pair = one[[low, high]].isel(layer=0).rename({low: "smallest", high: "largest"})
    ends = pair.to_dataarray("shown").astype(np.float64).compute()
    finite = ends.where(np.isfinite(ends))
    over = [dim for dim in ends.dims if dim not in ("channel", "shown")]
    width = finite.sel(shown="largest").max(over) - finite.sel(shown="smallest").min(over)
    channel = _widest(width.values, count, one)
    levels = {"low": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "high": 1.0}
    quartiles = finite.isel(channel=channel).quantile(list(levels.values()), over)
    data = xr.Dataset(
        {name: quartiles.isel(quantile=k, drop=True) for k, name in enumerate(levels)},
        attrs=extrema(one).attrs,
    )
    return data.transpose("channel", "shown").reset_coords(drop=True).assign_coords(channel=channel)


def _widest(width: np.ndarray, count: int, one: xr.Dataset) -> np.ndarray:
    """Indices of at most `count` known widths, the largest first."""
    known = np.flatnonzero(~np.isnan(width))
    if not known.size:
        name = str(one["layer"].values[0])
        raise MissingError(problem("no channel has a finite value", where=name))
    widest: np.ndarray = known[np.argsort(-width[known], kind="stable")][:count]
    return widest


def draw_boxes(data: xr.Dataset, ax: Axes) -> Axes:
    """Boxes of every channel, smallest and largest at one place (`box_data`)."""
    shown = [str(name) for name in data["shown"].values]
    for name in shown:
        _draw_one(data.sel(shown=name), ax, END_COLORS[name])
    channels = data["channel"].values
    ax.axhline(0.0, color="0.5", linewidth=0.6, zorder=0)
    ax.set_xticks(np.arange(len(channels)), [str(c) for c in channels], rotation=90)
    ax.set_xlim(-1, len(channels))
    ax.set_xlabel("channel index, widest first")
    ax.set_ylabel(figures.VALUE_LABEL)
    _stretch(data, ax)
    if len(shown) > 1:
        patches = [Patch(color=END_COLORS[name], label=f"{name} value") for name in shown]
        ax.legend(handles=patches, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2,
                  frameon=False)  # fmt: skip
    return ax


def _stretch(data: xr.Dataset, ax: Axes) -> None:
    """An asinh axis, linear as far as most boxes go, where a linear one would flatten them."""
    box = np.nanmedian(np.maximum(abs(data["q1"].values), abs(data["q3"].values)))
    reach = max(float(abs(data[name]).max()) for name in ("low", "high", "minimum", "maximum")
                if name in data)  # fmt: skip
    if box > 0 and reach > _FLAT * box:
        figures.asinh_scale(ax, "y", float(box), reach)
        ax.set_ylabel(f"{figures.VALUE_LABEL}, asinh axis")


def _draw_one(data: xr.Dataset, ax: Axes, color: str) -> None:
    names = {"whislo": "low", "q1": "q1", "med": "median", "q3": "q3", "whishi": "high"}
    known = np.flatnonzero(data["median"].notnull().values)
    boxes = [{key: float(data[name][i]) for key, name in names.items()} for i in known]
    ax.bxp(
        boxes,
        positions=known,
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": color, "edgecolor": color},
        whiskerprops={"color": color},
        capprops={"color": color},
        medianprops={"color": "black", "linewidth": 1.0},
        manage_ticks=False,
    )
    for name in ("minimum", "maximum"):
        if name in data:
            ax.plot(known, data[name].values[known], ".", color="0.25", markersize=3)


def box_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer."""
    return each_layer(view, _page)


def _page(one: xr.Dataset) -> Page:
    data = box_data(one)
    name = str(one["layer"].values[0])
    figure = Figure(figsize=(11.0, 6.0), layout="constrained")
    draw_boxes(data, figure.subplots())
    figure.suptitle(f"{name}: {_title(data)}", fontsize="medium")
    return Page(f"box_{file_name(name)}", figure, table(data))


def _title(data: xr.Dataset) -> str:
    """What exactly the boxes are of."""
    attrs = data.attrs
    over = f"over {attrs['steps']} steps"
    over += f" x {attrs['batches']} batches" if attrs["batches"] else ""
    head = f"the {data.sizes['channel']} widest of {attrs['channels']} channels"
    if "mantissa_bits" in attrs:
        exact = f"from {CHANNEL_HISTOGRAMS}, bins of relative width 1/{2 ** attrs['mantissa_bits']}"
        what = f"all values {over}; whiskers: 1 % and 99 %; dots: extremes"
        return f"{head}\nboxes: quartiles of {what}\n({exact})"
    note = f"\n({averaged(data)})" if averaged(data) else ""
    what = f"each channel's smallest and of its largest value {over}; whiskers: extremes"
    return f"{head}\nboxes: quartiles of {what}{note}"

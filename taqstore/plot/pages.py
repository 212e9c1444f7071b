"""Pages: which pictures a figure kind makes of a view, each with its table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from taqstore.errors import MissingError, problem
from taqstore.names import PROJECTIONS
from taqstore.plot import data as numbers
from taqstore.plot import figures
from taqstore.plot.sources import AVERAGED, file_name, noise_coordinate

if TYPE_CHECKING:
    import pandas as pd

HEATMAP_LABELS = {
    "mean": "mean, median over channels",
    "std": "std, median over channels",
    "absmax": "absmax over channels",
    "shift": "absmax over channels of the shift",
}


@dataclass(frozen=True)
class Page:
    """One picture: file name without suffix, the drawing, the numbers drawn."""

    stem: str
    figure: Figure
    table: pd.DataFrame


def range_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """`range_all`, then one page per stream: median channel range above, tensor extrema below."""
    data = numbers.range_data(view)
    # One colour per block on all pages.
    norm = figures.block_norm(data)
    streams = [s for s in figures.STREAM_NAMES if s in data["stream"].values]
    for name, chosen in [("all", streams), *((figures.STREAM_NAMES[s], [s]) for s in streams)]:
        part = data.isel(layer=np.isin(data["stream"].values.astype(str), chosen))
        yield Page(_stem("range", site, name), _range_figure(part, site, norm), numbers.table(part))


def _range_figure(data: xr.Dataset, site: str, norm: BoundaryNorm) -> Figure:
    panels = _panels(data)
    figure = Figure(figsize=(2.0 + 4.5 * len(panels), 7.5), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (title, part) in enumerate(panels):
        figures.draw_median_range(part, axes[0, column], norm=norm).set_title(title)
        figures.draw_tensor_extrema(part, axes[1, column], norm=norm)
    _label_outer(axes)
    if norm.N > 2:
        scale = ScalarMappable(norm, figures.line_colors())
        ticks = MaxNLocator(nbins=12, integer=True)
        bar = figure.colorbar(scale, ax=axes, label="block index", ticks=ticks, aspect=40)
        bar.minorticks_off()
    _headline(figure, "channel ranges against noise", site, _averaged(data))
    return figure


def histogram_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer that has a histogram."""
    counted = [i for i in range(view.sizes["layer"]) if _has_counts(view.isel(layer=i))]
    # Without any, the first layer's own error says what is missing.
    for index in counted or [0]:
        one = view.isel(layer=[index])
        data = numbers.histogram_data(one)
        figure = Figure(figsize=(8.5, 5.0), layout="constrained")
        ax = figures.draw_histogram(data, figure.subplots())
        name = str(one["layer"].values[0])
        ax.set_title(f"{name}: values by step", loc="left")
        label = "noise level σ" if noise_coordinate(data)[0] == "sigma" else "step index"
        scale = ScalarMappable(figures.noise_norm(data), figures.line_colors())
        figure.colorbar(scale, ax=ax, label=label)
        yield Page(f"histogram_{file_name(name)}", figure, numbers.table(data))


def _has_counts(view: xr.Dataset) -> bool:
    counts = view["hist_counts"] if "hist_counts" in view else view["histogram"]
    return bool(counts.any())


def channel_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer: ranges by channel index above, widest first below."""
    for index in range(view.sizes["layer"]):
        one = view.isel(layer=[index])
        data = numbers.channel_data(one)
        name = str(one["layer"].values[0])
        figure = Figure(figsize=(10.0, 7.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharey=True)
        figures.draw_channels(data, upper, order="channel")
        figures.draw_channels(data, lower, order="rank")
        legend = upper.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
        for line in legend.get_lines():
            line.set_linewidth(3.0)
        figure.suptitle(_channel_title(name, data))
        yield Page(f"channels_{file_name(name)}", figure, numbers.table(data))


def _channel_title(name: str, data: xr.Dataset) -> str:
    what = "mean channel extrema" if _averaged(data) else "channel extrema"
    return f"{name}: {what} over {data.attrs['steps']} steps"


def heatmap_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per quantity: mean and std, or absmax and shift, a panel per stream."""
    data = numbers.heatmap_data(view)
    known = [str(name) for name, array in data.data_vars.items() if np.isfinite(array).any()]
    if not known:
        what = f"{' and '.join(map(str, data.data_vars))} hold no values for these layers"
        raise MissingError(problem(what, where="plot heatmap"))
    for variable in known:
        style = figures.heatmap_style(data[variable].values)
        draw = partial(figures.draw_heatmap, variable=variable, style=style)
        figure = _heatmap_figure(data, draw, style, HEATMAP_LABELS[variable])
        note = _averaged(data) if variable == "absmax" else ""
        _headline(figure, f"{variable} by block and noise", site, note)
        yield Page(_stem("heatmap", site, variable), figure, numbers.table(data[[variable]]))


def negative_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page: the share of values below zero, a panel per stream."""
    data = numbers.negative_data(view)
    if not data["counted"].any():
        raise MissingError(
            problem("no values were counted in any histogram", where="plot negative")
        )
    style = figures.heatmap_style(100.0 * data["negative_fraction"].values)
    draw = partial(figures.draw_negative, style=style)
    figure = _heatmap_figure(data, draw, style, "values below zero (% of counted)")
    _headline(figure, "share of negative values by block and noise", site, "")
    yield Page(_stem("negative", site), figure, numbers.table(data))


def _heatmap_figure(
    data: xr.Dataset,
    draw: Callable[[xr.Dataset, Axes], Axes],
    style: tuple[Normalize, Colormap],
    label: str,
) -> Figure:
    panels = _panels(data)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    blocks = int(data["block"].max() - data["block"].min()) + 1
    size = (2.0 + 4.8 * columns, 1.0 + rows * max(2.8, 0.9 + 0.2 * blocks))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (title, part) in zip(axes.flat, panels, strict=False):
        draw(part, ax).set_title(title)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    axes[0, 0].set_ylim(float(data["block"].max()) + 0.5, float(data["block"].min()) - 0.5)
    _label_outer(axes)
    figure.colorbar(ScalarMappable(*style), ax=axes, label=label)
    if data.sizes["layer"] < blocks * len(panels):
        figure.supxlabel("grey: no data", fontsize="small")
    return figure


def _panels(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Title and part of `data` for each stream and projection, in that order."""
    panels = []
    keys = list(zip(data["stream"].values, data["projection"].values, strict=True))
    for stream, projection in itertools.product(figures.STREAM_NAMES, ("", *PROJECTIONS)):
        if (stream, projection) not in keys:
            continue
        part = data.isel(layer=[i for i, key in enumerate(keys) if key == (stream, projection)])
        panels.append((f"{figures.STREAM_NAMES[stream]} stream {projection}".strip(), part))
    return panels


def _label_outer(axes: np.ndarray) -> None:
    for ax in axes.flat:
        ax.label_outer()


def _headline(figure: Figure, what: str, site: str, note: str) -> None:
    where = f"{site} inputs: " if site else ""
    figure.suptitle(f"{where}{what}" + (f"\n({note})" if note else ""))


def _averaged(data: xr.Dataset) -> str:
    """What to say of extrema that are means, nothing of true ones."""
    return AVERAGED if data.attrs["extrema"] == AVERAGED else ""


def _stem(kind: str, site: str, part: str = "") -> str:
    return "_".join(piece for piece in (kind, file_name(site), part) if piece)

"""Pages: which pictures a figure kind makes of a view, each with its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from taqstore.errors import MissingError, problem
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts import numbers
from taqstore.plot.parts.panels import (
    Page,
    block_bar,
    headline,
    heatmap_figure,
    label_outer,
    page_stem,
    panels_of,
)
from taqstore.plot.parts.views import AVERAGED, file_name, noise_coordinate

HEATMAP_LABELS = {
    "mean": "mean, median over channels",
    "std": "std, median over channels",
    "absmax": "absmax over channels",
    "shift": "absmax over channels of the shift",
}


def range_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """`range_all`, then one page per stream: median channel range above, tensor extrema below."""
    data = numbers.range_data(view)
    # One colour per block on all pages.
    norm = figures.block_norm(data)
    streams = [s for s in figures.STREAM_NAMES if s in data["stream"].values]
    for name, chosen in [("all", streams), *((figures.STREAM_NAMES[s], [s]) for s in streams)]:
        part = data.isel(layer=np.isin(data["stream"].values.astype(str), chosen))
        yield Page(
            page_stem("range", site, name), _range_figure(part, site, norm), numbers.table(part)
        )


def _range_figure(data: xr.Dataset, site: str, norm: BoundaryNorm) -> Figure:
    panels = panels_of(data)
    figure = Figure(figsize=(2.0 + 4.5 * len(panels), 7.5), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (title, part) in enumerate(panels):
        figures.draw_median_range(part, axes[0, column], norm=norm).set_title(title)
        figures.draw_tensor_extrema(part, axes[1, column], norm=norm)
    label_outer(axes)
    block_bar(figure, axes, norm)
    headline(figure, "channel ranges against noise", site, averaged(data))
    return figure


def histogram_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer that has a histogram."""
    return each_layer(view, _histogram_page)


def _histogram_page(one: xr.Dataset) -> Page:
    data = numbers.histogram_data(one)
    figure = Figure(figsize=(8.5, 5.0), layout="constrained")
    ax = figures.draw_histogram(data, figure.subplots())
    name = str(one["layer"].values[0])
    ax.set_title(f"{name}: values by step", loc="left")
    label = "noise level σ" if noise_coordinate(data)[0] == "sigma" else "step index"
    scale = ScalarMappable(figures.noise_norm(data), figures.line_colors())
    figure.colorbar(scale, ax=ax, label=label)
    return Page(f"histogram_{file_name(name)}", figure, numbers.table(data))


def each_layer(view: xr.Dataset, make: Callable[[xr.Dataset], Page]) -> Iterator[Page]:
    """Pages ``make(view of one layer)`` of all layers that have something to show.

    Raises
    ------
    MissingError
        None has; what the first one lacks.
    """
    missing: list[MissingError] = []
    for index in range(view.sizes["layer"]):
        try:
            page = make(view.isel(layer=[index]))
        except MissingError as error:
            missing.append(error)
        else:
            yield page
    if missing and len(missing) == view.sizes["layer"]:
        raise missing[0]


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
    what = "mean channel extrema" if averaged(data) else "channel extrema"
    return f"{name}: {what} over {data.attrs['steps']} steps"


def heatmap_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per quantity: mean, std, absmax and shift where known, a panel per stream."""
    data = numbers.heatmap_data(view)
    known = [str(name) for name, array in data.data_vars.items() if np.isfinite(array).any()]
    if not known:
        what = f"{' and '.join(map(str, data.data_vars))} hold no values for these layers"
        raise MissingError(problem(what, where="plot heatmap"))
    for variable in known:
        style = figures.heatmap_style(data[variable].values)
        draw = partial(figures.draw_heatmap, variable=variable, style=style)
        figure = heatmap_figure(data, draw, style, HEATMAP_LABELS[variable])
        note = averaged(data) if variable == "absmax" else ""
        headline(figure, f"{variable} by block and noise", site, note)
        yield Page(page_stem("heatmap", site, variable), figure, numbers.table(data[[variable]]))


def negative_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page: the share of values below zero, a panel per stream."""
    data = numbers.negative_data(view)
    if not data["counted"].any():
        raise MissingError(
            problem("no values were counted in any histogram", where="plot negative")
        )
    style = figures.heatmap_style(100.0 * data["negative_fraction"].values)
    draw = partial(figures.draw_negative, style=style)
    figure = heatmap_figure(data, draw, style, "values below zero (% of counted)")
    headline(figure, "share of negative values by block and noise", site, "")
    yield Page(page_stem("negative", site), figure, numbers.table(data))


def averaged(data: xr.Dataset) -> str:
    """What to say of extrema that are means, nothing of true ones, from the attribute `extrema`."""
    return AVERAGED if data.attrs["extrema"] == AVERAGED else ""

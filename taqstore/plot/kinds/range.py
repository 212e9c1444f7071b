"""Ranges against noise: the median channel range and the tensor's extrema, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from taqstore.analysis import diagnostics
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.labels import draw_layers, name_blocks
from taqstore.plot.parts.panels import (
    Page,
    averaged,
    block_bar,
    headline,
    label_outer,
    page_stem,
    panels_of,
    table,
)
from taqstore.plot.parts.views import extrema, noise_coordinate

_SPREAD = 8.0
"""From so many times the narrowest on, the median ranges stand on a log axis."""


def range_pages(
    view: xr.Dataset, site: str, *, answers: xr.Dataset | None = None
) -> Iterator[Page]:
    """`range_all`, then one page per stream: median channel range above, tensor extrema below.

    `answers` are the `diagnostics` of the view where they are known already.
    """
    data = range_data(view, answers=answers)
    # One colour per block on all pages.
    norm = figures.block_norm(data)
    streams = [s for s in figures.STREAM_NAMES if s in data["stream"].values]
    for name, chosen in [("all", streams), *((figures.STREAM_NAMES[s], [s]) for s in streams)]:
        part = data.isel(layer=np.isin(data["stream"].values.astype(str), chosen))
        yield Page(page_stem("range", site, name), _range_figure(part, site, norm), table(part))


def range_data(view: xr.Dataset, *, answers: xr.Dataset | None = None) -> xr.Dataset:
    """Per (step, layer): `median_range` over channels, `tensor_min`, `tensor_max`."""
    pair = extrema(view)
    found = diagnostics(view) if answers is None else answers
    return xr.Dataset(
        {
            "median_range": found["step_range"],
            "tensor_min": pair["lower"].min("channel"),
            "tensor_max": pair["upper"].max("channel"),
        },
        attrs=pair.attrs,
    ).compute()


def draw_median_range(data: xr.Dataset, ax: Axes, *, norm: Normalize | None = None) -> Axes:
    """`median_range` of every layer against sigma, coloured by block (`range_data`)."""
    _lines(data, ax, "median_range", norm or figures.block_norm(data))
    values = data["median_range"].values
    if figures.is_wide(values[values > 0], _SPREAD):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("median over channels of max - min\n(dimensionless)")
    return figures.noise_axis(data, ax)


def draw_tensor_extrema(data: xr.Dataset, ax: Axes, *, norm: Normalize | None = None) -> Axes:
    """`tensor_min` and `tensor_max` of every layer against sigma (`range_data`).

    Shaded, darker: between the medians over layers of both; lighter: between their outer quartiles.
    """
    norm = norm or figures.block_norm(data)
    _, x = noise_coordinate(data)
    ends = (data[name].transpose("layer", "step").values for name in ("tensor_min", "tensor_max"))
    low, high = (_middle_half(end) for end in ends)
    for bounds, alpha in (((low[0], high[2]), 0.12), ((low[1], high[1]), 0.12)):
        ax.fill_between(x, *bounds, color="0.3", alpha=alpha, linewidth=0)
    for name in ("tensor_min", "tensor_max"):
        _lines(data, ax, name, norm)
    ax.axhline(0.0, color="0.5", linewidth=0.6)
    sizes = abs(np.stack([data["tensor_min"].values, data["tensor_max"].values]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if figures.is_wide(sizes):
        figures.asinh_scale(ax, "y", float(np.median(sizes)), float(sizes.max()))
    ax.set_ylabel("smallest and largest channel extreme\n(dimensionless)")
    return figures.noise_axis(data, ax)


def _lines(data: xr.Dataset, ax: Axes, variable: str, norm: Normalize) -> None:
    _, x = noise_coordinate(data)
    values = data[variable].transpose("layer", "step").values
    colors = figures.line_colors()(norm(data["block"].values))
    draw_layers(ax, x, values, colors, data["stream"].values)


def _middle_half(values: np.ndarray) -> np.ndarray:
    """Quartiles over layers at every step, (quartile, step), of what is finite; else NaN."""
    finite = np.where(np.isfinite(values), values, np.nan)
    found = np.full((3, values.shape[1]), np.nan)
    known = np.isfinite(values).any(axis=0)
    found[:, known] = np.nanquantile(finite[:, known], (0.25, 0.5, 0.75), axis=0)
    return found


def _range_figure(data: xr.Dataset, site: str, norm: BoundaryNorm) -> Figure:
    panels = panels_of(data)
    figure = Figure(figsize=(2.0 + 4.5 * len(panels), 7.5), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (title, part) in enumerate(panels):
        draw_median_range(part, axes[0, column], norm=norm).set_title(title)
        draw_tensor_extrema(part, axes[1, column], norm=norm)
    label_outer(axes)
    # Rows share their axis: where a line ends is known once all panels are drawn.
    for column, (_, part) in enumerate(panels):
        name_blocks(part, axes[0, column], variable="median_range", norm=norm)
        name_blocks(part, axes[1, column], variable="tensor_max", norm=norm)
    block_bar(figure, axes, norm)
    shaded = "shaded: medians and outer quartiles; at the ends: blocks"
    notes = (averaged(data), shaded if data.sizes["layer"] > 1 else "")
    note = "\n".join(note for note in notes if note)
    headline(figure, "channel ranges against noise", site, note)
    return figure

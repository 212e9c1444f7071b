"""Ranges against noise: the median channel range and the tensor's extrema, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure

from taqstore.analysis import diagnostics
from taqstore.plot.parts import drawing as figures
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
    pair = extrema(view).compute()
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
    if figures.is_wide(values[values > 0]):
        ax.set_yscale("log")
    ax.set_ylabel("median over channels of max - min\n(dimensionless)")
    return figures.noise_axis(data, ax)


def draw_tensor_extrema(data: xr.Dataset, ax: Axes, *, norm: Normalize | None = None) -> Axes:
    """Band from `tensor_min` to `tensor_max` of every layer against sigma (`range_data`)."""
    norm = norm or figures.block_norm(data)
    _, x = noise_coordinate(data)
    colors = figures.line_colors()
    for layer in range(data.sizes["layer"]):
        one = data.isel(layer=layer)
        ax.fill_between(
            x,
            one["tensor_min"].transpose("step").values,
            one["tensor_max"].transpose("step").values,
            color=colors(norm(int(one["block"]))),
            alpha=max(0.04, 0.3 / data.sizes["layer"]),
            linewidth=0,
        )
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
    colors = figures.line_colors()
    values = data[variable].transpose("layer", "step").values
    for row, block, stream in zip(values, data["block"].values, data["stream"].values, strict=True):
        line, marker = figures.STREAM_STYLES[stream]
        color = colors(norm(block))
        ax.plot(x, row, line, marker=marker, markersize=2.5, linewidth=1, color=color)


def _range_figure(data: xr.Dataset, site: str, norm: BoundaryNorm) -> Figure:
    panels = panels_of(data)
    figure = Figure(figsize=(2.0 + 4.5 * len(panels), 7.5), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (title, part) in enumerate(panels):
        draw_median_range(part, axes[0, column], norm=norm).set_title(title)
        draw_tensor_extrema(part, axes[1, column], norm=norm)
    label_outer(axes)
    block_bar(figure, axes, norm)
    headline(figure, "channel ranges against noise", site, averaged(data))
    return figure

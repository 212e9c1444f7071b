"""Histograms: the density of each layer's values, one curve per step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.densities import histogram_data
from taqstore.plot.parts.panels import Page, each_layer, table
from taqstore.plot.parts.views import file_name, noise_coordinate


def histogram_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer that has a histogram."""
    return each_layer(view, _page)


def draw_histogram(data: xr.Dataset, ax: Axes, *, norm: Normalize | None = None) -> Axes:
    """One density curve per step, coloured by sigma, log y (`histogram_data`)."""
    _, noise = noise_coordinate(data)
    norm, colors = norm or figures.noise_norm(data), figures.line_colors()
    left, right = data["left"].values, data["right"].values
    for step, level in enumerate(noise):
        rows = (left[step], right[step]) if left.ndim == 2 else (left, right)
        density = data["density"].transpose("step", "bin").values[step]
        if np.isfinite(density).any():
            edges = np.append(rows[0], rows[1][-1])
            positive = np.where(density > 0, density, np.nan)
            ax.stairs(positive, edges, baseline=None, color=colors(norm(level)), alpha=0.8)
    ax.axvline(0.0, color="0.5", linewidth=0.6, zorder=0)
    ax.set_xlabel(figures.VALUE_LABEL)
    if data.attrs["linear_width"]:
        ax.set_xlabel(f"{figures.VALUE_LABEL}, asinh axis")
        figures.asinh_scale(
            ax, "x", data.attrs["linear_width"], max(abs(left.min()), abs(right.max()))
        )
    ax.set_yscale("log")
    ax.set_ylabel("density (share of values per unit)")
    return ax


def _page(one: xr.Dataset) -> Page:
    data = histogram_data(one)
    figure = Figure(figsize=(8.5, 5.0), layout="constrained")
    ax = draw_histogram(data, figure.subplots())
    name = str(one["layer"].values[0])
    ax.set_title(f"{name}: values by step", loc="left")
    label = "noise level σ" if noise_coordinate(data)[0] == "sigma" else "step index"
    scale = ScalarMappable(figures.noise_norm(data), figures.line_colors())
    figure.colorbar(scale, ax=ax, label=label)
    return Page(f"histogram_{file_name(name)}", figure, table(data))

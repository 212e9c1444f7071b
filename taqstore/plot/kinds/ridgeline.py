"""Ridgelines: the histograms of one layer as ridges, one per step, noise at the top."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.densities import histogram_data
from taqstore.plot.parts.panels import Page, each_layer, table
from taqstore.plot.parts.views import file_name, noise_coordinate

OVERLAP = 2.0
"""Height of the tallest ridge in distances between ridges."""

DECADES = 5
"""Powers of ten from the foot of a ridge to the top of the tallest; less is as good as none."""

_LABELS = 13


def ridgeline_data(view: xr.Dataset) -> xr.Dataset:
    """Histogram of the view's only layer as `densities.histogram_data` has it, with ridge heights.

    `height` (step, bin) is the share of a step's values per unit of the axis they are drawn on, so
    that equal areas are equal shares: the density, or on an asinh axis
    ``share / (asinh(right / w) - asinh(left / w))`` with w its linear width.

    Raises
    ------
    MissingError
        The layer's histogram is empty at every step.
    """
    data = histogram_data(view)
    width = data.attrs["linear_width"]
    if not width:
        return data.assign(height=data["density"])
    left, right = (np.arcsinh(data[name] / width) for name in ("left", "right"))
    share = data["density"] * (data["right"] - data["left"])
    return data.assign(height=share / (right - left))


def draw_ridgeline(data: xr.Dataset, ax: Axes) -> Axes:
    """One filled ridge per step, each on a line from its smallest to its largest value.

    Ridges rise with the logarithm of `height`, over `DECADES`, on one scale for all steps.
    """
    _, noise = noise_coordinate(data)
    norm, colors = figures.noise_norm(data), figures.line_colors()
    heights = data["height"].transpose("step", "bin").values
    floor = np.nanmax(heights) / 10.0**DECADES
    base = -np.arange(len(noise), dtype=np.float64)
    for step, level in enumerate(noise):
        edges, ridge = _ridge(data, heights, step)
        if not ridge.size:
            continue
        rise = np.log10(np.maximum(ridge, floor) / floor)
        top, color, z = base[step] + OVERLAP / DECADES * rise, colors(norm(level)), 2.0 + step
        ax.stairs(top, edges, baseline=base[step], fill=True, color=color, zorder=z)
        # White parts a ridge from those behind it.
        ax.stairs(top, edges, baseline=None, color="white", linewidth=0.6, zorder=z)
        ax.hlines(base[step], edges[0], edges[-1], color, linewidth=0.8, zorder=z)
    ax.axvline(0.0, color="0.5", linewidth=0.6, zorder=1)
    return _ridge_axes(data, ax, base)


def _ridge(data: xr.Dataset, heights: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and heights of the bins from the first to the last that hold a value of this step."""
    left, right = (data[name].values for name in ("left", "right"))
    if left.ndim == 2:
        left, right = left[step], right[step]
    used = np.flatnonzero(heights[step] > 0)
    if not used.size:
        return left[:0], heights[step, :0]
    shown = slice(used[0], used[-1] + 1)
    return np.append(left[shown], right[used[-1]]), heights[step, shown]


def _ridge_axes(data: xr.Dataset, ax: Axes, base: np.ndarray) -> Axes:
    name, noise = noise_coordinate(data)
    every = -(-len(base) // _LABELS)
    ax.set_yticks(base[::every], [f"{level:.3g}" for level in noise[::every]])
    ax.set_ylim(base[-1] - 0.5, OVERLAP + 0.5)
    ax.set_ylabel(figures.SIGMA_LABEL if name == "sigma" else figures.STEP_LABEL)
    ax.set_xlabel(figures.VALUE_LABEL)
    if width := data.attrs["linear_width"]:
        bound = max(abs(float(data["left"].min())), abs(float(data["right"].max())))
        ax.set_xlabel(f"{figures.VALUE_LABEL}, asinh axis")
        figures.asinh_scale(ax, "x", width, bound)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def ridgeline_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per layer that has a histogram."""
    return each_layer(view, _page)


def _page(one: xr.Dataset) -> Page:
    data = ridgeline_data(one)
    height = 2.2 + min(8.0, 0.3 * (data.sizes["step"] + OVERLAP))
    figure = Figure(figsize=(8.5, height), layout="constrained")
    ax = draw_ridgeline(data, figure.subplots())
    name = str(one["layer"].values[0])
    what = f"ridge height: log of the share of values per unit of the axis, {DECADES} decades"
    ax.set_title(f"{name}: values by step\n", loc="left")
    ax.text(0.0, 1.01, what, transform=ax.transAxes, fontsize="small", va="bottom")
    return Page(f"ridgeline_{file_name(name)}", figure, table(data))

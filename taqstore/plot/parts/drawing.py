"""Drawing: `f(data, ax) -> Axes`, one panel each, from the Datasets that each kind makes.

Only Axes are touched, never pyplot's global state. Noise is at the left: sigma falls along x.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.markers import TICKDOWN
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from taqstore.plot.parts.views import noise_coordinate

STREAM_NAMES = {"img": "image", "txt": "text", "uni": "unified", "": "model"}
STREAM_STYLES = {"img": ("-", "o"), "txt": ("--", "s"), "uni": (":", "^"), "": ("-.", "D")}
PLAIN_COLOR, OUTLIER_COLOR = "#6F9BC8", "#CC0000"
VALUE_LABEL = "activation value (dimensionless)"
SIGMA_LABEL = "noise level σ (1: noise, 0: image)"
STEP_LABEL = "step index (σ is not known)"

MISSING_COLOR = "0.85"
_WIDE = 50.0


@cache
def line_colors() -> Colormap:
    """Colours of ordered lines: viridis without its last tenth, too pale on white."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.9, 256))
    return LinearSegmentedColormap.from_list("lines", list(shades))


def block_norm(data: xr.Dataset) -> BoundaryNorm:
    """Block index to colour, one shade per block from the first to the last of `data`."""
    blocks = data["block"].values
    return BoundaryNorm(np.arange(int(blocks.min()), int(blocks.max()) + 2) - 0.5, ncolors=256)


def noise_norm(data: xr.Dataset) -> Normalize:
    """Sigma (or step index) to colour."""
    _, values = noise_coordinate(data)
    return linear_norm(float(values.min()), float(values.max()))


def heatmap_style(values: np.ndarray) -> tuple[Normalize, Colormap]:
    """Norm and colours for a heat map: diverging about 0 where signs differ, log where wide."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if low < 0 < high:
        bound = max(-low, high)
        return Normalize(-bound, bound), mpl.colormaps["RdBu_r"].with_extremes(bad=MISSING_COLOR)
    colors = sequential_colors()
    if low > 0 and high / low > _WIDE:
        return LogNorm(low, high), colors
    return linear_norm(low, high), colors


def linear_norm(low: float, high: float) -> Normalize:
    """From the least to the most; about a single value, so that a colour bar can write it."""
    half = 0.0 if high > low else 0.1 * abs(low) or 1.0
    return Normalize(low - half, high + half)


def sequential_colors() -> Colormap:
    """Viridis with grey for what is missing."""
    return mpl.colormaps["viridis"].with_extremes(bad=MISSING_COLOR)


def draw_heatmap(
    data: xr.Dataset, ax: Axes, *, variable: str, style: tuple[Normalize, Colormap] | None = None
) -> Axes:
    """`variable` (step, layer) of one stream: block index down, sigma falling to the right.

    Columns are as wide as the steps they stand for; blocks without a layer are grey. Rows
    outside of blocks bear names, their `label` where there is one.
    """
    blocks = data["block"].values
    rows = np.arange(int(blocks.min()), int(blocks.max()) + 1)
    values = np.full((len(rows), data.sizes["step"]), np.nan)
    values[blocks - rows[0]] = data[variable].transpose("layer", "step").values
    norm, colors = style or heatmap_style(values)
    ax.set_facecolor(MISSING_COLOR)
    ax.pcolormesh(
        cell_edges(data), np.append(rows, rows[-1] + 1) - 0.5, values, norm=norm, cmap=colors
    )
    ax.set_ylim(rows[-1] + 0.5, rows[0] - 0.5)
    if "label" in data.coords or not any(data["stream"].values):
        name = "label" if "label" in data.coords else "layer"
        ax.set_yticks(blocks, data[name].values, fontsize="small")
    else:
        ax.yaxis.set_major_locator(whole_ticks())
        ax.set_ylabel("block index")
    _mark_steps(ax, noise_coordinate(data)[1])
    return noise_axis(data, ax, whole=False)


def _mark_steps(ax: Axes, x: np.ndarray) -> None:
    """What minor ticks look like at every step, as one artist: a tick is five."""
    ax.plot(
        x,
        np.zeros(len(x)),
        linestyle="none",
        marker=TICKDOWN,
        markersize=mpl.rcParams["xtick.minor.size"],
        markeredgewidth=mpl.rcParams["xtick.minor.width"],
        color=mpl.rcParams["xtick.color"],
        transform=ax.get_xaxis_transform(),
        clip_on=False,
    )


def noise_axis(data: xr.Dataset, ax: Axes, *, whole: bool = True) -> Axes:
    """Noise at the left; `whole` shows all of sigma's range 1 to 0 where its values lie in it."""
    name, x = noise_coordinate(data)
    edges = cell_edges(data)
    if whole:
        inside = name == "sigma" and x.min() >= 0.0 and x.max() <= 1.0
        first, last = (1.0, 0.0) if inside else (edges[0], edges[-1])
        edges = np.array([first + 0.02 * (first - last), last - 0.02 * (first - last)])
    ax.set_xlim(edges[0], edges[-1])
    if name == "step":
        ax.xaxis.set_major_locator(whole_ticks())
    ax.set_xlabel(SIGMA_LABEL if name == "sigma" else STEP_LABEL)
    return ax


def whole_ticks(most: int = 12) -> MaxNLocator:
    """Ticks at whole numbers alone, of what is counted: blocks, steps, channels, groups."""
    return MaxNLocator(nbins=most, integer=True, min_n_ticks=1, steps=[1, 2, 4, 5, 10])


def asinh_scale(ax: Axes, which: Literal["x", "y"], linear_width: float, bound: float) -> None:
    """An asinh axis with ticks at 0 and at the powers of ten that stand clear of it."""
    powers = 10.0 ** np.arange(np.ceil(np.log10(linear_width) - 0.5), np.log10(bound) + 1)
    set_scale, axis = (ax.set_xscale, ax.xaxis) if which == "x" else (ax.set_yscale, ax.yaxis)
    set_scale("asinh", linear_width=linear_width)
    # Margins of the linear axis would be a third of this one.
    ax.autoscale(axis=which)
    axis.set_major_locator(FixedLocator([*(-powers[::-1]), 0.0, *powers]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def cell_edges(data: xr.Dataset) -> np.ndarray:
    """Bounds of every step's cell, halfway to its neighbours, inside [0, 1] where sigma is."""
    name, x = noise_coordinate(data)
    direction = -1.0 if name == "sigma" else 1.0
    if len(x) == 1:
        half = 0.05 if name == "sigma" else 0.5
        return np.array([x[0] - direction * half, x[0] + direction * half])
    middle = (x[1:] + x[:-1]) / 2
    edges = np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])
    inside = name == "sigma" and x.min() >= 0.0 and x.max() <= 1.0
    return np.clip(edges, 0.0, 1.0) if inside else edges


def is_wide(values: np.ndarray, times: float = _WIDE) -> bool:
    """Whether the largest finite value is so far above the smallest that an axis should be log."""
    finite = values[np.isfinite(values)]
    return finite.size > 0 and bool(finite.max() > times * finite.min())

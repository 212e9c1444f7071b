"""What quantization cost, variant by variant: final latents, the denoiser by step, blocks."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from taqstore.plot.parts.drawing import MISSING_COLOR, SIGMA_LABEL, cell_edges

# How weights were rounded: Okabe and Ito's colours, and shapes that tell them apart without.
_WEIGHTS = {
    "float": ("o", "#000000"),
    "rtn": ("s", "#D55E00"),
    "clipped": ("D", "#E69F00"),
    "mlx": ("v", "#CC79A7"),
    "adaround": ("^", "#0072B2"),
    "gptq": ("P", "#009E73"),
}
_OTHER_SET = ("X", "#56B4E9")

# A variant's name goes on after how its weights were rounded: rtn-w3-g8/a8-static@mm0-4.
_END_OF_WORD = re.compile("[-/@]")


def evaluation_figure(result: xr.Dataset) -> Figure:
    """Three panels over the variants of `pipelines.evaluate`, one row each, as it gives them.

    Parameters
    ----------
    result
        `latent_error` (variant, image), `denoiser_error` (variant, step), `sqnr` and `quantized`
        (variant, block), `weight_bits` (variant); the first variant is the model as it is and is
        left out.
    """
    data = result.isel(variant=slice(1, None))
    rows = data.sizes["variant"]
    columns = data.sizes["block"]
    widths = (3.2, 4.5, min(7.0, max(2.8, 0.5 * columns)))
    figure = Figure(figsize=(sum(widths) + 3.6, 1.6 + 0.24 * rows), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=widths)
    draw_latent_error(data, axes[0])
    steps = draw_denoiser_error(data, axes[1])
    bar = figure.colorbar(steps, ax=axes[1], label="relative error", aspect=30)
    _plain_numbers(bar.ax.yaxis)
    blocks = draw_block_sqnr(data, axes[2])
    figure.colorbar(blocks, ax=axes[2], label="dB", aspect=30)
    axes[0].set_ylim(rows - 0.5, -0.5)
    axes[0].set_yticks(np.arange(rows), data["variant"].values)
    bits = sorted({int(width) for width in data["weight_bits"].values if width})
    about = [str(result.attrs["model"])]
    about += [f"weights of {' and '.join(map(str, bits))} bits"] * bool(bits)
    figure.suptitle(f"cost of quantization: {', '.join(about)}, {data.sizes['image']} images")
    return figure


def draw_latent_error(data: xr.Dataset, ax: Axes) -> Axes:
    """Mean over images of the final latent's relative error, and each image small."""
    values = data["latent_error"].transpose("variant", "image").values
    for row, name in enumerate(data["variant"].values):
        shape, color = _WEIGHTS.get(_END_OF_WORD.split(str(name), maxsplit=1)[0], _OTHER_SET)
        found = values[row][values[row] > 0]
        ax.plot(found, np.full(len(found), row), "|", color=color, alpha=0.5, markersize=6)
        if len(found):
            ax.plot(values[row].mean(), row, shape, color=color, markersize=6)
    ax.set_xscale("log")
    _plain_numbers(ax.xaxis)
    ax.grid(axis="x", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel("relative error (mean; ticks: images)")
    ax.set_title("final latent", fontsize="medium")
    return ax


def draw_denoiser_error(data: xr.Dataset, ax: Axes) -> QuadMesh:
    """Heat map of the denoiser's relative error, sigma falling to the right; returns its mesh."""
    values = data["denoiser_error"].transpose("variant", "step").values
    colors = colormaps["viridis"].with_extremes(bad=MISSING_COLOR)
    mesh = ax.pcolormesh(cell_edges(data), _rows(values), values, norm=_log(values), cmap=colors)
    edges = cell_edges(data)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_xlabel(SIGMA_LABEL)
    ax.set_title("denoiser, by step", fontsize="medium")
    return mesh


def draw_block_sqnr(data: xr.Dataset, ax: Axes) -> QuadMesh:
    """Heat map of the SQNR in dB of every block that a variant quantizes; returns its mesh."""
    values = data["sqnr"].where(data["quantized"]).transpose("variant", "block").values
    values = np.where(np.isfinite(values), values, np.nan)
    colors = colormaps["viridis"].with_extremes(bad=MISSING_COLOR)
    columns = np.arange(values.shape[1] + 1) - 0.5
    mesh = ax.pcolormesh(columns, _rows(values), values, cmap=colors, norm=_linear(values))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    names = [str(name) for name in data["block"].values]
    ax.xaxis.set_major_formatter(
        lambda place, _: names[int(place)] if 0 <= place < len(names) else ""
    )
    ax.set_xlabel("block")
    ax.set_title("SQNR of quantized blocks' outputs", fontsize="medium")
    return mesh


def _plain_numbers(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten, written out."""
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _rows(values: np.ndarray) -> np.ndarray:
    return np.arange(len(values) + 1) - 0.5


def _log(values: np.ndarray) -> Normalize:
    positive = values[values > 0]
    return LogNorm(positive.min(), positive.max()) if positive.size else Normalize(0, 1)


def _linear(values: np.ndarray) -> Normalize:
    known = values[np.isfinite(values)]
    return Normalize(known.min(), known.max()) if known.size else Normalize(0, 1)

"""Cosine with the model as it is, by noise: how far variants leave its trajectories, and when."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from taqstore.plot.parts.drawing import noise_axis
from taqstore.plot.parts.views import noise_coordinate
from taqstore.trajectory.measures import MIN_COSINE

_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_NEAREST = 1e-6
"""Cosines nearer to 1 are drawn here: float32 tells no more."""
_DASHES = ("-", "--", ":", "-.")


def trajectory_figure(
    variants: Mapping[str, xr.Dataset],
    *,
    panels: Mapping[str, str],
    min_cosine: float = MIN_COSINE,
) -> Figure:
    """A panel for each prefix of `panels`, which says what it shows; one legend, one cosine axis.

    Parameters
    ----------
    variants
        By name, as of `query.variants.compared_variants`.
    """
    size = (1.2 + 4.65 * max(len(panels), 1.5), 4.6 + 0.12 * len(variants))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (prefix, what) in zip(axes, panels.items(), strict=True):
        draw_trajectories(variants, ax, prefix=prefix, min_cosine=min_cosine)
        ax.set_title(what)
    _cosine_axis(axes[0], _furthest(variants, panels, 1.0 - min_cosine))
    axes[0].set_ylabel("cosine with the model as it is")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    images = max(data.sizes["image"] for data in variants.values())
    figure.suptitle(
        f"trajectories of variants, {images} seeds: mean, 95 % interval, thin: the worst seed"
        f"\n(dashed: {min_cosine:g}; crosses: where a seed first falls below it)"
    )
    return figure


def draw_trajectories(
    variants: Mapping[str, xr.Dataset], ax: Axes, *, prefix: str = "", min_cosine: float
) -> Axes:
    """Mean cosine by sigma, its interval, and the worst seed; crosses where one first is below.

    Drawn as a distance from 1, as all that is worth seeing is close to it.
    """
    colors = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (name, data) in enumerate(variants.items()):
        color, dash = colors[number % 10], _DASHES[number // 10 % len(_DASHES)]
        _, x = noise_coordinate(data)
        mean, lower, upper = (data[f"{prefix}{n}"].values for n in ("mean", "lower", "upper"))
        cosine = data[f"{prefix}cosine"].transpose("image", "step").values
        ax.plot(x, _distance(mean), dash, color=color, linewidth=1.4, label=name)
        ax.fill_between(x, _distance(lower), _distance(upper), color=color, alpha=0.2, linewidth=0)
        if len(cosine) > 1:
            worst = _distance(np.fmin.reduce(cosine, axis=0))
            ax.plot(x, worst, dash, color=color, linewidth=0.6, alpha=0.7)
        if not prefix:
            first = data["first_below"].values
            image = np.flatnonzero(first >= 0)
            left = _distance(cosine[image, first[image]])
            ax.plot(x[first[image]], left, "x", color=color, markersize=5)
    ax.axhline(1.0 - min_cosine, color="0.3", linewidth=0.8, linestyle="--")
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    return noise_axis(next(iter(variants.values())), ax)


def _distance(values: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - values, _NEAREST)


def _furthest(variants: Mapping[str, xr.Dataset], panels: Mapping[str, str], bound: float) -> float:
    """The largest distance that any panel shows, or the bound: all share the axis."""
    names = [f"{prefix}{end}" for prefix in panels for end in ("lower", "cosine")]
    shown = [_distance(data[name].values) for data in variants.values() for name in names]
    return max(bound, *(float(np.fmax.reduce(far, axis=None, initial=bound)) for far in shown))


def _cosine_axis(ax: Axes, furthest: float) -> None:
    ax.set_yscale("log")
    ax.set_ylim(min(2.0, 1.5 * furthest), _NEAREST / 1.5)
    ax.yaxis.set_major_locator(FixedLocator([1.0 - tick for tick in _TICKS]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1.0 - value:g}"))

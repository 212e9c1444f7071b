"""How far every variant of the store keeps to the trajectories of the model as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import noise_coordinate
from taqstore.query.variants import compared_variants
from taqstore.trajectory.measures import MIN_COSINE

if TYPE_CHECKING:
    import pandas as pd

PANELS = {"": "latent", "output_": "guided output"}
_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
_NEAREST = 1e-6
"""Cosines nearer to 1 are drawn here: float32 tells no more."""


def gate_pages(
    groups: Mapping[str, xr.Dataset],
    *,
    min_cosine: float = MIN_COSINE,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> Iterator[Page]:
    """One page: cosine of latents and of guided outputs by step, a line for every variant.

    Parameters
    ----------
    min_cosine
        The bound; steps at which a seed first falls below it are marked.
    answers
        What `query.variants.compared_variants` says, where it is known.
    """
    found = answers or compared_variants(groups, min_cosine=min_cosine)
    yield Page("gate", _figure(found, min_cosine), gate_table(found))


def gate_table(variants: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Rows by variant and step: mean cosines with intervals, the worst image, bifurcated there."""
    import pandas as pd

    return pd.concat([_rows(name, data) for name, data in variants.items()], ignore_index=True)


def draw_gate(
    variants: Mapping[str, xr.Dataset], ax: Axes, *, prefix: str = "", min_cosine: float
) -> Axes:
    """Mean cosine by sigma with its interval; crosses where a seed first falls below the bound.

    The axis is logarithmic in 1 - cosine: one is at the top.
    """
    colors = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (name, data) in enumerate(variants.items()):
        color, line = colors[number % 10], ("-", "--", ":")[number // 10 % 3]
        _, x = noise_coordinate(data)
        mean, lower, upper = (data[f"{prefix}{n}"].values for n in ("mean", "lower", "upper"))
        ax.plot(x, _distance(mean), line, color=color, linewidth=1.4, label=name)
        ax.fill_between(x, _distance(lower), _distance(upper), color=color, alpha=0.2, linewidth=0)
        if not prefix:
            first = data["first_below"].values
            image = np.flatnonzero(first >= 0)
            left = data["cosine"].values[image, first[image]]
            ax.plot(x[first[image]], _distance(left), "x", color=color, markersize=5)
    ax.axhline(1.0 - min_cosine, color="0.3", linewidth=0.8, linestyle="--")
    _cosine_axis(ax, _furthest(variants, 1.0 - min_cosine))
    return figures.noise_axis(next(iter(variants.values())), ax)


def _distance(values: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - values, _NEAREST)


def _furthest(variants: Mapping[str, xr.Dataset], bound: float) -> float:
    """The largest distance that any panel shows, or the bound: all share the axis."""
    ends = [data[name].values for data in variants.values() for name in ("lower", "output_lower")]
    ends += [data["cosine"].values for data in variants.values()]
    return max(bound, *(float(np.nanmax(_distance(values))) for values in ends))


def _cosine_axis(ax: Axes, furthest: float) -> None:
    ax.set_yscale("log")
    ax.set_ylim(min(2.0, 1.5 * furthest), _NEAREST / 1.5)
    ax.yaxis.set_major_locator(FixedLocator([1.0 - tick for tick in _TICKS]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1.0 - value:g}"))
    ax.grid(axis="y", color="0.9", linewidth=0.5)


def _figure(variants: Mapping[str, xr.Dataset], min_cosine: float) -> Figure:
    figure = Figure(figsize=(10.5, 4.6 + 0.12 * len(variants)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (prefix, what) in zip(axes, PANELS.items(), strict=True):
        draw_gate(variants, ax, prefix=prefix, min_cosine=min_cosine)
        ax.set_title(what)
    axes[0].set_ylabel("cosine with the model as it is")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    images = max(data.sizes["image"] for data in variants.values())
    figure.suptitle(
        f"trajectories of variants, {images} seeds: mean, 95 % interval"
        f"\n(dashed: {min_cosine:g}; crosses: where a seed first falls below it)"
    )
    return figure


def _rows(name: str, data: xr.Dataset) -> pd.DataFrame:
    import pandas as pd

    order = np.arange(data.sizes["step"])
    return pd.DataFrame(
        {
            "variant": name,
            "step": data["step"].values,
            **{c: data[c].values for c in ("sigma", "timestep") if c in data.coords},
            "seeds": data.sizes["image"],
            "cosine": data["mean"].values,
            "lower": data["lower"].values,
            "upper": data["upper"].values,
            "least": data["cosine"].min("image").values,
            "output_cosine": data["output_mean"].values,
            "output_lower": data["output_lower"].values,
            "output_upper": data["output_upper"].values,
            "bifurcated": (data["first_below"].values[:, None] == order).sum(axis=0),
        }
    )

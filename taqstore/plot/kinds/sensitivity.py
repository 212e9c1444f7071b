"""What quantizing one part of the model alone does to the picture: a map, and bars of larger parts.

Linears of blocks stand in a map of blocks by sites, both streams; those outside of blocks beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from taqstore.kinds.sensitivity import sensitivities
from taqstore.names import LayerName, parse_layer, site_rank, split_group
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import file_name

LABEL = "relative error of the final latent (mean over images)"
_OUTSIDE = "outside of blocks"
_BARS = 40
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def sensitivity_pages(
    groups: Mapping[str, xr.Dataset], *, answers: Mapping[str, xr.Dataset] | None = None
) -> Iterator[Page]:
    """A map for every format that linears were tried in; a page of lines for every other unit.

    Parameters
    ----------
    answers
        What `kinds.sensitivities` says by ``unit/format``, where it is known.
    """
    known = {split_group(key): data for key, data in (answers or {}).items()}
    found = known or sensitivities(groups)
    for (unit, name), data in found.items():
        if unit == "linear":
            table = sensitivity_table({name: data})
            yield Page(f"sensitivity_{file_name(name)}", _map_figure(table, name, data), table)
    for unit in dict.fromkeys(unit for unit, _ in found if unit != "linear"):
        tried = {name: data for (other, name), data in found.items() if other == unit}
        table = sensitivity_table(tried)
        yield Page(f"sensitivity_{unit}s", _bar_figure(table, unit), table)


def sensitivity_table(formats: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Rows by format and target: mean and largest error of the final latent over images.

    `worst_cosine` is the least over images and steps, `weights` how many the format changes.
    """
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "format": name,
                    "target": data["target"].values.astype(object),
                    "latent_error": data["latent_error"].mean("image").values,
                    "largest": data["latent_error"].max("image").values,
                    "worst_cosine": data["worst_cosine"].min("image").values,
                    "weights": data["weights"].values,
                }
            )
            for name, data in formats.items()
        ],
        ignore_index=True,
    )


def draw_sensitivity_map(
    table: pd.DataFrame, ax: Axes, *, style: tuple[Normalize, Colormap], stream: str
) -> Axes:
    """`latent_error` of one stream: blocks down, linears of a block across."""
    linears = [parse_layer(target) for target in table["target"]]
    rows = [n for n, linear in enumerate(linears) if linear.stream == stream]
    names = _names_in_order([linears[n] for n in rows])
    blocks = list(dict.fromkeys(linears[n].block for n in rows))
    values = np.full((len(blocks), len(names)), np.nan)
    for n in rows:
        place = blocks.index(linears[n].block), names.index(_in_block(linears[n]))
        values[place] = table["latent_error"].iloc[n]
    _cells(ax, values, style)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(blocks)), blocks)
    if len(blocks) > 24:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=24, integer=True))
        ax.yaxis.set_major_formatter(
            lambda at, _: blocks[int(at)] if 0 <= at < len(blocks) and at == int(at) else ""
        )
    ax.set_title(f"{figures.STREAM_NAMES[stream]} stream", fontsize="medium")
    return ax


def draw_outside(table: pd.DataFrame, ax: Axes, *, style: tuple[Normalize, Colormap]) -> Axes:
    """`latent_error` of linears outside of blocks, one below the other."""
    chosen = [t for t in table["target"] if not parse_layer(t).in_block]
    values = table.set_index("target").loc[chosen, "latent_error"].to_numpy()[:, None]
    _cells(ax, values, style)
    ax.set_xticks([])
    ax.set_yticks(range(len(chosen)), chosen, fontsize="small")
    ax.yaxis.tick_right()
    ax.set_title(_OUTSIDE, fontsize="medium")
    return ax


def sensitivity_style(values: np.ndarray) -> tuple[Normalize, Colormap]:
    """Log colours where errors are above zero: they differ by powers of ten."""
    found = values[np.isfinite(values) & (values > 0)]
    colors = figures.sequential_colors()
    if not found.size:
        return Normalize(0.0, 1.0), colors
    low, high = float(found.min()), float(found.max())
    return LogNorm(low, high if high > low else 1.01 * low, clip=True), colors


def _cells(ax: Axes, values: np.ndarray, style: tuple[Normalize, Colormap]) -> None:
    norm, colors = style
    edges = (np.arange(size + 1) - 0.5 for size in values.shape[::-1])
    ax.set_facecolor(figures.MISSING_COLOR)
    ax.pcolormesh(*edges, values, norm=norm, cmap=colors, edgecolors="white", linewidth=0.5)
    ax.set_ylim(len(values) - 0.5, -0.5)


def _in_block(linear: LayerName) -> str:
    return linear.projection or linear.site


def _names_in_order(linears: list[LayerName]) -> list[str]:
    ranked = {_in_block(one): (site_rank(one.site), one.projection) for one in linears}
    projections = ("q_proj", "k_proj", "v_proj")
    order = {name: n for n, name in enumerate(("", *projections))}
    return sorted(ranked, key=lambda name: (ranked[name][0], order[ranked[name][1]]))


def _map_figure(table: pd.DataFrame, name: str, data: xr.Dataset) -> Figure:
    linears = [parse_layer(target) for target in table["target"]]
    inside = [linear for linear in linears if linear.in_block]
    streams = [s for s in figures.STREAM_NAMES if s in {one.stream for one in inside}]
    outside = len(linears) - len(inside)
    blocks = len({linear.block for linear in inside})
    widths = [3.4] * len(streams) + [0.5] * bool(outside)
    size = (2.4 + sum(widths) + 2.2 * bool(outside), 2.2 + 0.24 * max(blocks, outside, 6))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    style = sensitivity_style(table["latent_error"].to_numpy())
    for ax, stream in zip(axes, streams, strict=False):
        draw_sensitivity_map(table, ax, style=style, stream=stream)
    if outside:
        draw_outside(table, axes[-1], style=style)
    bar = figure.colorbar(
        ScalarMappable(*style), ax=axes, label=LABEL, location="bottom", aspect=50
    )
    bar.ax.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.ax.xaxis.set_minor_locator(NullLocator())
    images = data.sizes["image"]
    figure.suptitle(
        f"one linear at a time in {name}, {images} images"
        + ("\n(grey: no such linear, or not tried)" if _has_gaps(inside) else "")
    )
    return figure


def _has_gaps(inside: list[LayerName]) -> bool:
    streams = {one.stream for one in inside}
    full = sum(
        len({one.block for one in inside if one.stream == stream})
        * len({_in_block(one) for one in inside if one.stream == stream})
        for stream in streams
    )
    return full > len(inside)


def _bar_figure(table: pd.DataFrame, unit: str) -> Figure:
    names = list(dict.fromkeys(table["format"]))
    targets = list(dict.fromkeys(table["target"]))
    figure = Figure(figsize=(max(6.0, 2.0 + 0.22 * len(targets)), 4.2), layout="constrained")
    ax = figure.subplots()
    for number, name in enumerate(names):
        part = table[table["format"] == name].set_index("target")
        color = _COLORS[number % len(_COLORS)]
        place = [targets.index(target) for target in part.index]
        ax.plot(place, part["latent_error"], "o-", color=color, markersize=4, label=name)
    positive = table["latent_error"][table["latent_error"] > 0]
    if len(positive) and figures.is_wide(positive.to_numpy()):
        ax.set_yscale("log")
    _target_axis(ax, targets, unit)
    ax.set_ylabel("relative error of the final latent\n(mean over images)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"one {unit} at a time")
    return figure


def _target_axis(ax: Axes, targets: list[str], unit: str) -> None:
    ax.set_xlim(-0.6, len(targets) - 0.4)
    ax.set_xlabel(unit)
    share = -(-len(targets) // _BARS)
    shown = range(0, len(targets), share)
    ax.xaxis.set_major_locator(FixedLocator(list(shown)))
    long = max((len(target) for target in targets), default=0) > 3
    # Ends of slanted names stand at their ticks.
    turned: dict[str, Any] = (
        {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
    )
    ax.set_xticklabels([targets[n] for n in shown], **turned)

"""Which block a line is of, written at its end: among 24 shades a colour bar tells too little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.views import noise_coordinate

_POINTS = 7.0


def name_blocks(data: xr.Dataset, ax: Axes, *, variable: str, norm: Normalize) -> Axes:
    """Write block numbers right of the last value of `variable` of every layer.

    Where lines end close to each other only some are named: the outermost first, and no two labels
    overlap. To be called when the limits and the scale of the y axis are final.
    """
    if data.sizes["layer"] < 2:
        return ax
    _, x = noise_coordinate(data)
    values = data[variable].transpose("layer", "step").values
    last = _last_known(values)
    ends = values[np.arange(len(values)), last]
    colors = figures.line_colors()
    for layer in _named(ends, ax):
        block = int(data["block"].values[layer])
        ax.annotate(
            str(block),
            (x[last[layer]], ends[layer]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=_POINTS,
            color=colors(norm(block)),
            annotation_clip=False,
        )
    return ax


def _last_known(values: np.ndarray) -> np.ndarray:
    """Place of the last finite value of every row; of any where there is none."""
    last: np.ndarray = values.shape[1] - 1 - np.isfinite(values)[:, ::-1].argmax(axis=1)
    return last


def _named(ends: np.ndarray, ax: Axes) -> Iterator[int]:
    """Layers that are named."""
    figure = ax.get_figure()
    assert figure is not None
    height = 72.0 * ax.get_position().height * float(figure.bbox.height) / figure.dpi
    apart = 1.1 * _POINTS / height
    known = np.flatnonzero(np.isfinite(ends))
    points = np.column_stack([np.zeros(len(known)), ends[known]])
    places = ax.transAxes.inverted().transform(ax.transData.transform(points))[:, 1]
    taken: list[float] = []
    for rank in np.argsort(-abs(places - np.median(places)), kind="stable"):
        place = float(places[rank])
        if 0.0 <= place <= 1.0 and all(abs(place - other) >= apart for other in taken):
            taken.append(place)
            yield int(known[rank])


def thin_style(layers: int) -> dict[str, Any]:
    """Width of lines and size of markers: many lines are thin, without markers."""
    many = layers > _FEW
    return {"linewidth": 0.8 if many else 1.0, "markersize": 0.0 if many else 2.5}


def draw_layers(
    ax: Axes, x: np.ndarray, values: np.ndarray, colors: np.ndarray, streams: np.ndarray
) -> Axes:
    """A line for every layer of ``(layer, step)``, as its stream is drawn; few have markers."""
    styles, look = [figures.STREAM_STYLES[stream] for stream in streams], thin_style(len(values))
    if not look["markersize"]:
        lines = [line for line, _ in styles]
        points = np.stack(np.broadcast_arrays(x, values), axis=-1)
        return draw_lines(ax, list(points), colors, lines, look["linewidth"])
    for row, color, (line, marker) in zip(values, colors, styles, strict=True):
        ax.plot(x, row, line, marker=marker, color=color, **look)
    return ax


def draw_lines(
    ax: Axes, points: Sequence[np.ndarray], colors: np.ndarray, lines: Sequence[str], width: float
) -> Axes:
    """Lines through ``(place, 2)`` as one artist: many are made and drawn in less time."""
    made = LineCollection(points, linewidths=width, colors=colors, linestyles=lines)
    made.set_joinstyle("round")
    ax.add_collection(made)
    ax.autoscale_view()
    return ax


_FEW = 12

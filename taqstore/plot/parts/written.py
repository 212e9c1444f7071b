"""Figures written: laid out once and drawn once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_VECTOR_DPI = 72.0
_ASKED_OFTEN = ("_update_ticks", "_get_ticklabel_bboxes")
# Inches left, below, right and above of an Axes, until they are measured: labels and a title.
_USUAL = (0.55, 0.45, 0.1, 0.25)


def save(
    figure: Figure,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    format: str,
    dpi: float,
    **how: Any,
) -> None:
    """Write a figure as `Figure.savefig` does, in a third of the time.

    That draws everything twice where there is a layout, the first time for the layout alone, which
    asks for the sizes of things and not for their picture.

    Parameters
    ----------
    format
        Out of `plot.FORMATS`.
    dpi
        Of pixels; in drawings of those parts that are rasterized.
    how
        As of `Figure.savefig`.
    """
    with _ticked_once(figure):
        _save(figure, target, format=format, dpi=dpi, **how)


def _save(
    figure: Figure,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    format: str,
    dpi: float,
    **how: Any,
) -> None:
    layout = figure.get_layout_engine()
    if layout is not None:
        # Sizes of text are those of what draws it.
        get_registered_canvas_class(format)(figure)
        before, figure.dpi = figure.dpi, dpi if format == "png" else _VECTOR_DPI
        with _measured_once(figure):
            layout.execute(figure)
        figure.dpi = before
        figure.set_layout_engine(None)
    try:
        figure.savefig(target, format=format, dpi=dpi, **how)
    finally:
        if layout is not None:
            figure.set_layout_engine(layout)


@contextmanager
def _ticked_once(figure: Figure) -> Iterator[None]:
    """Let every Axis work out its ticks, and the sizes of their labels, when its Axes has moved.

    A layout and a drawing ask some ten times of each, which is a fifth of what both take.
    """
    axes = [axis for ax in figure.axes for axis in ax._axis_map.values()]
    known = [(axis, name) for axis in axes for name in _ASKED_OFTEN if hasattr(axis, name)]
    for axis, name in known:
        vars(axis)[name] = _Still(axis, getattr(axis, name))
    try:
        yield
    finally:
        for axis, name in known:
            del vars(axis)[name]


class _Still:
    """A method of an Axis, which is asked anew when its view or its Axes is another."""

    def __init__(self, axis: Axis, method: Callable[..., Any]) -> None:
        self._axis, self._method = axis, method
        self._state: tuple[float, ...] | None = None
        self._found: Any = None

    def __call__(self, *given: Any, **how: Any) -> Any:
        ax = self._axis.axes
        now = (*self._axis.get_view_interval(), *ax.bbox.bounds, ax.figure.dpi)
        if now != self._state:
            self._found, self._state = self._method(*given, **how), now
        return self._found


@contextmanager
def _measured_once(figure: Figure) -> Iterator[None]:
    """Let a layout of two passes measure what stands around each Axes in the second one only."""
    for ax in figure.axes:
        vars(ax)["get_tightbbox"] = _Room(ax)
    try:
        yield
    finally:
        for ax in figure.axes:
            del vars(ax)["get_tightbbox"]


class _Room:
    """`Axes.get_tightbbox` for a layout: `_USUAL` where it stands first, then measured.

    The first pass only finds out about how large Axes will be, as labels depend on that. Colour
    bars are asked for as often as they have parents.
    """

    def __init__(self, ax: Axes) -> None:
        self._ax, self._first = ax, ax.get_position(original=True).bounds
        self._found: dict[tuple[float, ...], Bbox | None] = {}

    def __call__(self, renderer: Any = None, **how: Any) -> Bbox | None:
        place = self._ax.get_position(original=True)
        in_grid = self._ax.get_subplotspec() is not None
        if in_grid and place.bounds == self._first:
            return self._usual(place)
        if place.bounds not in self._found:
            self._found[place.bounds] = type(self._ax).get_tightbbox(self._ax, renderer, **how)
        return self._found[place.bounds]

    def _usual(self, place: Bbox) -> Bbox:
        figure = self._ax.get_figure()
        assert figure is not None
        inside = place.transformed(figure.transSubfigure)
        left, below, right, above = (inches * figure.dpi for inches in _USUAL)
        return Bbox.from_extents(
            inside.x0 - left, inside.y0 - below, inside.x1 + right, inside.y1 + above
        )

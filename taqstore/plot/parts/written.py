"""Figures written: laid out once and drawn once."""

from __future__ import annotations

import os
from typing import IO, Any

from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.figure import Figure

_VECTOR_DPI = 72.0


def save(
    figure: Figure,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    format: str,
    dpi: float,
    **how: Any,
) -> None:
    """Write a figure as `Figure.savefig` does, in half the time.

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
    layout = figure.get_layout_engine()
    if layout is not None:
        # Sizes of text are those of what draws it.
        get_registered_canvas_class(format)(figure)
        before, figure.dpi = figure.dpi, dpi if format == "png" else _VECTOR_DPI
        layout.execute(figure)
        figure.dpi = before
        figure.set_layout_engine(None)
    try:
        figure.savefig(target, format=format, dpi=dpi, **how)
    finally:
        if layout is not None:
            figure.set_layout_engine(layout)

"""Figures of activation statistics, each with a CSV of the numbers it shows.

`FIGURES` is the table of all kinds; `render` makes the pictures of one kind from one group,
observed (`activations/<site>`) or pooled (`pooled/<source>/<site>`); `plot.draw` chooses groups of
a store. To draw into Axes of your own, use the ``*_data`` and ``draw_*`` functions of
`plot.kinds`. Only files below this folder import matplotlib, and none imports pyplot: figures need
no display. The package itself imports nothing until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.plot import draw as draw
    from taqstore.plot import evaluation as evaluation
    from taqstore.plot import kinds as kinds
    from taqstore.plot.figures import FIGURES, FORMATS, FigureKind
    from taqstore.plot.parts.panels import Page
    from taqstore.plot.render import make_pages, render, write_page

__all__ = ["FIGURES", "FORMATS", "FigureKind", "Page", "make_pages", "render", "write_page"]

lazy_face(
    __name__,
    {
        "FIGURES": "taqstore.plot.figures",
        "FORMATS": "taqstore.plot.figures",
        "FigureKind": "taqstore.plot.figures",
        "Page": "taqstore.plot.parts.panels",
        "make_pages": "taqstore.plot.render",
        "render": "taqstore.plot.render",
        "write_page": "taqstore.plot.render",
    },
    rooms=("draw", "evaluation", "kinds"),
)

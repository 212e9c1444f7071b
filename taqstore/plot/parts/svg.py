"""Figures as SVG that stands inside an HTML page."""

from __future__ import annotations

import io
import re
from typing import Literal
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure

from taqstore.plot.parts.written import save

_DPI = 180
_PIXELS_PER_INCH = 96
_MESH_CELLS = 400
"""Heat maps of more cells are embedded as pixels: as paths they take 100 bytes per cell."""
_SEGMENTS = 1000
"""The same holds for collections of more lines."""

_NAMESPACE = re.compile(r"\{[^}]*\}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DROPPED = ("metadata", "style")
_PLACES: tuple[Literal["center", "left"], ...] = ("center", "left")


def inline_svg(figure: Figure, prefix: str) -> str:
    """Draw a figure as one `<svg>` element for the body of an HTML page.

    Every id gets a prefix, so that several drawings in one page do not clash. The width that it
    was drawn for is the style's `--width`; its label is the title. The same figure gives the same
    text.

    Parameters
    ----------
    figure
        Changed: what is dense in it is set to be rasterized.
    prefix
        Distinct for each drawing of a page.
    """
    for artist in (artist for ax in figure.axes for artist in ax.collections):
        if _is_dense(artist):
            artist.set_rasterized(True)
    drawn = io.BytesIO()
    # Text stays text: smaller, searchable, and in a font with the metrics it was laid out for.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "taqstore"}):
        save(figure, drawn, format="svg", dpi=_DPI, metadata={"Date": None})
    root = ElementTree.fromstring(drawn.getvalue())
    _clean(root, prefix)
    width = f"--width: {figure.get_figwidth() * _PIXELS_PER_INCH:.0f}px"
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "style": width}
    if title := _title(figure):
        root.attrib["aria-label"] = title
    return ElementTree.tostring(root, encoding="unicode")


def _title(figure: Figure) -> str:
    """Title of the figure, else of its first axes that bear one, in one line."""
    titles = (figure.get_suptitle(), *(ax.get_title(loc) for ax in figure.axes for loc in _PLACES))
    return " ".join(next(filter(None, titles), "").split())


def _is_dense(artist: Artist) -> bool:
    if isinstance(artist, QuadMesh):
        values = artist.get_array()
        return values is not None and values.size > _MESH_CELLS
    return isinstance(artist, LineCollection) and len(artist.get_paths()) > _SEGMENTS


def _clean(element: ElementTree.Element, prefix: str) -> None:
    """Drop what is not drawing, XML namespaces (HTML has none), and make ids distinct."""
    element.tag = _NAMESPACE.sub("", element.tag)
    element.attrib = {
        _NAMESPACE.sub("", name): _renamed(_NAMESPACE.sub("", name), value, prefix)
        for name, value in element.attrib.items()
    }
    for child in list(element):
        if _NAMESPACE.sub("", child.tag) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)


def _renamed(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return _REFERENCE.sub(rf"url(#{prefix}-\1)", value)

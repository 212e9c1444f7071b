"""Figures of activation statistics, each with a CSV of the numbers it shows.

`render` makes the pictures of one kind from one group, observed (`activations/<site>`) or pooled
(`pooled/<source>/<site>`). To draw into Axes of your own, use `plot.data` and `plot.figures`.
This package alone imports matplotlib, and draws without a display and without pyplot.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.plot import pages
from taqstore.plot.pages import Page
from taqstore.plot.sources import BINS, EXTREMA, MOMENTS, Alternatives, linear_view, require
from taqstore.table import write_csv

FORMATS = ("png", "svg", "pdf")
_DPI = 120


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure.

    Parameters
    ----------
    doc
        What it shows, one line.
    requires
        Alternatives of variables, the first complete one is used.
    pages
        ``f(view, site)`` yielding pages, from a `sources.linear_view`.
    optional
        Variables shown where they are present.
    """

    doc: str
    requires: Alternatives
    pages: Callable[[xr.Dataset, str], Iterator[Page]]
    optional: tuple[str, ...] = ()


FIGURES: dict[str, FigureKind] = {
    "range": FigureKind(
        "channel ranges of every layer against sigma: all, image and text stream",
        EXTREMA,
        pages.range_pages,
    ),
    "histogram": FigureKind(
        "histogram of each layer, its steps overlaid", BINS, pages.histogram_pages
    ),
    "channels": FigureKind(
        "range of each layer's channels, the widest 2 % in red", EXTREMA, pages.channel_pages
    ),
    "heatmap": FigureKind(
        "mean and std (or absmax and shift) by block and sigma",
        (*MOMENTS, *EXTREMA),
        pages.heatmap_pages,
        optional=("shift",),
    ),
    "negative": FigureKind(
        "share of values below zero by block and sigma", BINS, pages.negative_pages
    ),
}


def render(
    kind: str,
    dataset: xr.Dataset,
    out_dir: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    site: str = "",
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Draw the figures of one kind and write them, a CSV beside each; return what was written.

    Parameters
    ----------
    kind
        Key of `FIGURES`.
    dataset
        One group over (step, layer, channel or bin), with a batch axis if observed.
    layers
        Spellings of layers or linears, or globs over layer labels; None for all.
    site
        Site of the group (``mlp.fc2``), for titles and file names.
    formats
        Suffixes out of `FORMATS`; none for the CSV alone.

    Raises
    ------
    MissingError
        Unknown kind, format, site or layer; variables missing; no values in any histogram.
    """
    _known("figure", kind, FIGURES)
    row = FIGURES[kind]
    for suffix in formats:
        _known("picture format", suffix, FORMATS)
    where = f"plot {kind}"
    names = require(dataset, row.requires, where=where)
    extra = [name for name in row.optional if name in dataset.variables]
    view = linear_view(dataset, [*names, *extra], site=site, layers=layers)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for page in row.pages(view, site):
        written += _write_page(page, folder, formats)
    return written


def _known(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise MissingError(
            problem(f"{what} {name!r} is not known", remedy=f"choose {', '.join(known)}")
        )


def _write_page(page: Page, folder: Path, formats: Sequence[str]) -> list[Path]:
    paths = []
    for suffix in formats:
        picture = io.BytesIO()
        page.figure.savefig(picture, format=suffix, dpi=_DPI)
        paths.append(_replace(folder / f"{page.stem}.{suffix}", picture.getvalue()))
    rows = io.StringIO()
    write_csv(page.table, rows)
    return [*paths, _replace(folder / f"{page.stem}.csv", rows.getvalue().encode())]


def _replace(path: Path, content: bytes) -> Path:
    """Write beside `path` and rename, so that no half-written file ever bears its name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path

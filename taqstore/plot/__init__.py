"""Figures of activation statistics, each with a CSV of the numbers it shows.

`render` makes the pictures of one kind from one group, observed (`activations/<site>`) or pooled
(`pooled/<source>/<site>`); `plot.store` chooses groups of a store. To draw into Axes of your own,
use `plot.data` and `plot.figures`.
This package alone imports matplotlib, and draws without a display and without pyplot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.files.datasets import write_table
from taqstore.files.staged import whole_file
from taqstore.plot.kinds.box import BOXES, box_pages
from taqstore.plot.kinds.channelmap import channelmap_pages
from taqstore.plot.kinds.ridgeline import ridgeline_pages
from taqstore.plot.parts import pages
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import BINS, EXTREMA, MOMENTS, Alternatives, linear_view, require

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
        ``f(view, site, **options)`` yielding pages, from a `sources.linear_view`.
    optional
        Variables shown where they are present.
    options
        Names of the options it takes.
    """

    doc: str
    requires: Alternatives
    pages: Callable[..., Iterator[Page]]
    optional: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


FIGURES: dict[str, FigureKind] = {
    "range": FigureKind(
        "channel ranges of every layer against sigma: all, image and text stream",
        EXTREMA,
        pages.range_pages,
    ),
    "histogram": FigureKind(
        "histogram of each layer, its steps overlaid", BINS, pages.histogram_pages
    ),
    "ridgeline": FigureKind(
        "histogram of each layer, a ridge for every step", BINS, ridgeline_pages
    ),
    "channels": FigureKind(
        "range of each layer's channels, the widest 2 % in red", EXTREMA, pages.channel_pages
    ),
    "channelmap": FigureKind(
        "log2 of every channel's absmax at every step, layer by layer", EXTREMA, channelmap_pages
    ),
    "box": FigureKind(
        "boxes of each layer's widest channels: values if binned by channel, else extremes",
        BOXES,
        box_pages,
    ),
    "heatmap": FigureKind(
        "mean, std, absmax and shift, as far as known, by block and sigma",
        (*MOMENTS, *EXTREMA),
        pages.heatmap_pages,
        optional=("min", "max", "avg_min", "avg_max", "shift"),
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
    **options: Any,
) -> list[Path]:
    """Draw the figures of one kind and write them, a CSV beside each; return what was written.

    Parameters
    ----------
    kind, dataset, layers, site, options
        As in `make_pages`.
    formats
        Suffixes out of `FORMATS`; none for the CSV alone.

    Raises
    ------
    MissingError
        Unknown kind, format, site or layer; variables missing; no values in any histogram.
    """
    check_formats(formats)
    made = make_pages(kind, dataset, layers=layers, site=site, **options)
    return [path for page in made for path in write_page(page, Path(out_dir), formats)]


def make_pages(
    kind: str,
    dataset: xr.Dataset,
    *,
    layers: Sequence[str] | None = None,
    site: str = "",
    **options: Any,
) -> Iterator[Page]:
    """Make the pages of one kind from one group; nothing is written.

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
    options
        Those that `FigureKind.options` names.

    Raises
    ------
    MissingError
        Unknown kind, site or layer; variables missing; no values in any histogram.
    """
    known("figure", kind, FIGURES)
    row = FIGURES[kind]
    names = require(dataset, row.requires, where=f"plot {kind}")
    extra = [name for name in row.optional if name in dataset.variables]
    view = linear_view(dataset, [*names, *extra], site=site, layers=layers)
    return row.pages(view, site, **options)


def known(what: str, name: str, names: Collection[str]) -> None:
    """Refuse a name that is not one of `names`, saying which there are.

    Raises
    ------
    MissingError
        It is not.
    """
    if name not in names:
        raise MissingError(
            problem(f"{what} {name!r} is not known", remedy=f"choose {', '.join(names)}")
        )


def check_formats(formats: Sequence[str]) -> None:
    """Refuse picture formats that are not among `FORMATS`, by a MissingError."""
    for suffix in formats:
        known("picture format", suffix, FORMATS)


def write_page(page: Page, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the picture in every format and its table as CSV; return the paths.

    Parameters
    ----------
    folder
        Made where it is missing.
    formats
        Suffixes out of `FORMATS`.
    """
    paths = [folder / f"{page.stem}.{suffix}" for suffix in formats]
    for path, suffix in zip(paths, formats, strict=True):
        with whole_file(path, force=True) as fresh:
            page.figure.savefig(fresh, format=suffix, dpi=_DPI)
    table = folder / f"{page.stem}.csv"
    write_table(page.table, table, force=True)
    return [*paths, table]

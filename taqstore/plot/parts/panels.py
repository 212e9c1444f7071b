"""What pages share: their parts and tables, panels per stream, heat maps, titles, file names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from taqstore.errors import MissingError
from taqstore.files.tables import to_table
from taqstore.names import PROJECTIONS, site_of
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.views import AVERAGED, file_name
from taqstore.query.sites import each_able

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Page:
    """One picture: file name without suffix, the drawing, the numbers drawn."""

    stem: str
    figure: Figure
    table: pd.DataFrame


def table(data: xr.Dataset) -> pd.DataFrame:
    """Rows of a figure's Dataset: one per coordinate tuple, bins without values left out."""
    # What is one number for several rows (bounds of shared bins, all steps) is repeated in each.
    rows = to_table(xr.broadcast(data)[0])
    return rows[rows["count"] > 0] if "count" in rows else rows


def heatmap_figure(
    data: xr.Dataset,
    draw: Callable[[xr.Dataset, Axes], Axes],
    style: tuple[Normalize, Colormap],
    label: str,
) -> Figure:
    """A heat map per stream and projection, at most three beside each other, under one colour bar.

    Parameters
    ----------
    data
        (step, layer) with the coordinates of a `views.linear_view`.
    draw
        ``f(part, ax)``, draws one panel.
    style
        Of the colour bar.
    label
        Beside the colour bar.
    """
    panels = panels_of(data)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    blocks = int(data["block"].max() - data["block"].min()) + 1
    size = (2.0 + 4.8 * columns, 1.0 + rows * max(2.8, 0.9 + 0.2 * blocks))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (title, part) in zip(axes.flat, panels, strict=False):
        draw(part, ax).set_title(title)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    axes[0, 0].set_ylim(float(data["block"].max()) + 0.5, float(data["block"].min()) - 0.5)
    label_outer(axes)
    figure.colorbar(ScalarMappable(*style), ax=axes, label=label)
    if data.sizes["layer"] < blocks * len(panels):
        figure.supxlabel("grey: no data", fontsize="small")
    return figure


def panels_of(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Title and part of `data` for each stream and projection, in that order."""
    panels = []
    keys = list(zip(data["stream"].values, data["projection"].values, strict=True))
    for stream, projection in itertools.product(figures.STREAM_NAMES, ("", *PROJECTIONS)):
        if (stream, projection) not in keys:
            continue
        part = data.isel(layer=[i for i, key in enumerate(keys) if key == (stream, projection)])
        panels.append((f"{figures.STREAM_NAMES[stream]} stream {projection}".strip(), part))
    return panels


def label_outer(axes: np.ndarray) -> None:
    """Leave labels of axes at the outer panels only."""
    for ax in axes.flat:
        ax.label_outer()


def headline(figure: Figure, what: str, site: str, note: str) -> None:
    """Title of a page: the site, what it shows and, below, a note."""
    where = f"{site} inputs: " if site else ""
    figure.suptitle(f"{where}{what}" + (f"\n({note})" if note else ""))


def averaged(data: xr.Dataset) -> str:
    """What to say of extrema that are means, nothing of true ones, from the attribute `extrema`."""
    return AVERAGED if data.attrs["extrema"] == AVERAGED else ""


def page_stem(kind: str, site: str, part: str = "") -> str:
    """File name of a page without suffix: kind, site and part joined by underscores."""
    return "_".join(piece for piece in (kind, file_name(site), part) if piece)


def block_bar(figure: Figure, axes: np.ndarray, norm: BoundaryNorm) -> None:
    """Colour bar of the block index, where there is more than one block."""
    if norm.N > 2:
        scale = ScalarMappable(norm, figures.line_colors())
        ticks = MaxNLocator(nbins=12, integer=True)
        bar = figure.colorbar(scale, ax=axes, label="block index", ticks=ticks, aspect=40)
        bar.minorticks_off()


def each_layer(view: xr.Dataset, make: Callable[[xr.Dataset], Page]) -> Iterator[Page]:
    """Pages ``make(view of one layer)`` of all layers that have something to show.

    Raises
    ------
    MissingError
        None has; what the first one lacks.
    """
    layers = range(view.sizes["layer"])
    yield from each_able(lambda index: [make(view.isel(layer=[index]))], layers)


def site_pages(
    groups: Mapping[str, xr.Dataset], make: Callable[[xr.Dataset, str], Iterator[Page]]
) -> Iterator[Page]:
    """Pages ``make(dataset, site)`` of every group in turn.

    Raises
    ------
    MissingError
        A site cannot be drawn; once all others are.
    """
    missing: list[MissingError] = []
    for path, dataset in groups.items():
        try:
            yield from make(dataset, site_of(path))
        except MissingError as error:
            missing.append(error)
    if missing:
        raise missing[0]

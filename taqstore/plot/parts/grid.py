"""Heat maps of all sites on one page: a row of panels per stream, a column per site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from taqstore.errors import MissingError, problem
from taqstore.names import site_of
from taqstore.plot.parts.panels import table
from taqstore.plot.parts.places import OUTSIDE, placed

if TYPE_CHECKING:
    import pandas as pd

_Group = TypeVar("_Group")
Draw = Callable[[xr.Dataset, Axes], Axes]


def site_grid(
    sites: Mapping[str, xr.Dataset],
    draw: Draw,
    style: tuple[Normalize, Colormap],
    label: str,
    *,
    ticks: Sequence[float] | None = None,
) -> Figure:
    """Heat maps by block and noise, streams below each other, sites and projections beside.

    Linears outside of blocks are rows of a panel of their own.

    Parameters
    ----------
    sites
        By site: (step, layer) with the coordinates of a `views.linear_view`.
    draw
        ``f(part, ax)``, draws one panel.
    style, label
        Of the colour bar that all panels share.
    ticks
        Of the colour bar, where its colours are few.
    """
    streams = [data.isel(layer=data["stream"].values != "") for data in sites.values()]
    blocks = np.concatenate([data["block"].values for data in streams])
    blocks = blocks if blocks.size else np.zeros(1, np.int64)
    height = max(2.4, 0.8 + 0.13 * (int(blocks.max() - blocks.min()) + 1))
    figure, axes = panel_grid(sites, draw, height=height)
    if axes[0].get_title() != OUTSIDE:
        axes[0].set_ylim(float(blocks.max()) + 0.5, float(blocks.min()) - 0.5)
    bar = figure.colorbar(
        ScalarMappable(*style),
        ax=axes,
        label=label,
        ticks=ticks,
        fraction=0.02,
        pad=0.01,
        aspect=40,
    )
    if ticks is not None:
        bar.minorticks_off()
    return figure


def panel_grid(
    sites: Mapping[str, xr.Dataset], draw: Draw, *, height: float, gather: bool = True
) -> tuple[Figure, list[Axes]]:
    """Figure and axes of panels, a row or more for every stream, all that are alike share axes.

    Parameters
    ----------
    sites
        By site: Datasets along layer with the coordinates of a `views.linear_view`.
    draw
        ``f(part, ax)``, draws one panel.
    height
        Of a row, in inches.
    gather
        Whether linears outside of blocks, one to a site, are shown as rows of one panel (see
        `places.placed`). It does not share its axes.
    """
    panels, rows, columns = placed(sites, gather=gather)
    # Titles of pages are long even where the panels are few.
    figure = Figure(figsize=(max(8.0, 2.4 + 3.3 * columns), 1.2 + height * rows))
    figure.set_layout_engine("constrained")
    grid = figure.add_gridspec(rows, columns)
    axes: list[Axes] = []
    alike = [panel for panel in panels if not panel.gathered]
    for panel in panels:
        shared = axes[0] if axes and not panel.gathered and not panels[0].gathered else None
        ax = figure.add_subplot(grid[panel.row, panel.column], sharex=shared, sharey=shared)
        draw(panel.data, ax)
        ax.set_title(panel.title, fontsize="medium")
        axes.append(ax)
        if not panel.gathered:
            below = any(o.column == panel.column and o.row > panel.row for o in alike)
            _label_outer(ax, left=panel.column == 0, bottom=not below)
    return figure, axes


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for panels that draw the same things, below all of them: it hides nothing."""
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)


def _label_outer(ax: Axes, *, left: bool, bottom: bool) -> None:
    """Leave labels of shared axes at the left and where no such panel is below."""
    if not left:
        ax.tick_params(axis="y", which="both", labelleft=False)
        ax.set_ylabel("")
    if not bottom:
        ax.tick_params(axis="x", which="both", labelbottom=False)
        ax.set_xlabel("")


def each_site(
    groups: Mapping[str, _Group], analyse: Callable[[_Group, str], xr.Dataset]
) -> tuple[dict[str, xr.Dataset], list[MissingError]]:
    """Results ``analyse(group, site)`` by site, and the errors of sites that lack something.

    Raises
    ------
    MissingError
        All sites do.
    """
    found: dict[str, xr.Dataset] = {}
    missing: list[MissingError] = []
    for path, group in groups.items():
        site = site_of(path)
        try:
            found[site] = analyse(group, site)
        except MissingError as error:
            missing.append(error)
    if missing and not found:
        raise missing[0]
    return found, missing


def require_counts(dataset: xr.Dataset, *, where: str) -> None:
    """Refuse a group whose histograms, if it has any, hold nothing at all.

    Raises
    ------
    MissingError
        Nothing was counted at any of its steps and layers.
    """
    counts = dataset.get("histogram", dataset.get("hist_counts"))
    if counts is not None and not bool(counts.any()):
        raise MissingError(problem("no values were counted in any histogram", where=where))


def site_table(sites: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Rows of the Datasets of all sites, whose layers bear full names, below each other."""
    import pandas as pd

    return pd.concat([table(data) for data in sites.values()], ignore_index=True)

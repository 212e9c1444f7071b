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
from taqstore.names import PROJECTIONS, site_of, site_rank
from taqstore.plot.parts.drawing import STREAM_NAMES
from taqstore.plot.parts.panels import label_outer, table

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
    blocks = np.concatenate([data["block"].values for data in sites.values()])
    height = max(2.4, 0.8 + 0.13 * (int(blocks.max() - blocks.min()) + 1))
    figure, axes = panel_grid(sites, draw, height=height)
    axes[0, 0].set_ylim(float(blocks.max()) + 0.5, float(blocks.min()) - 0.5)
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
    sites: Mapping[str, xr.Dataset], draw: Draw, *, height: float
) -> tuple[Figure, np.ndarray]:
    """Figure and axes (stream, site and projection) of panels that share both axes.

    Parameters
    ----------
    sites
        By site: Datasets along layer with the coordinates of a `views.linear_view`.
    draw
        ``f(part, ax)``, draws one panel.
    height
        Of a row, in inches.
    """
    parts = _parts(sites)
    columns = list(dict.fromkeys((site, projection) for site, projection, _ in parts))
    streams = [stream for stream in STREAM_NAMES if stream in {s for _, _, s in parts}]
    # Titles of pages are long even where the panels are few.
    size = (max(8.0, 2.4 + 3.3 * len(columns)), 1.2 + height * len(streams))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(streams), len(columns), sharex=True, sharey=True, squeeze=False)
    for row, stream in enumerate(streams):
        for column, (site, projection) in enumerate(columns):
            ax = axes[row, column]
            if (site, projection, stream) in parts:
                draw(parts[site, projection, stream], ax)
            else:
                ax.set_axis_off()
            ax.set_title(f"{STREAM_NAMES[stream]}: {site} {projection}".strip(), fontsize="medium")
    label_outer(axes)
    return figure, axes


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


def _parts(sites: Mapping[str, xr.Dataset]) -> dict[tuple[str, str, str], xr.Dataset]:
    """Panels by (site, projection, stream), sites and projections in the order of a block."""
    parts = {}
    for site, data in sorted(sites.items(), key=lambda item: site_rank(item[0])):
        keys = list(zip(data["projection"].values, data["stream"].values, strict=True))
        order = {name: rank for rank, name in enumerate(("", *PROJECTIONS))}
        for key in sorted(set(keys), key=lambda key: order[key[0]]):
            chosen = [i for i, other in enumerate(keys) if other == key]
            parts[site, str(key[0]), str(key[1])] = data.isel(layer=chosen)
    return parts

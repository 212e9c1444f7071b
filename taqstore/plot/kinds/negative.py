"""Share of negative values by block and noise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize

from taqstore.analysis import diagnostics
from taqstore.errors import MissingError, problem
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page, headline, heatmap_figure, page_stem, table


def negative_pages(
    view: xr.Dataset, site: str, *, answers: xr.Dataset | None = None
) -> Iterator[Page]:
    """One page: the share of values below zero, a panel per stream.

    `answers` are the `diagnostics` of the view where they are known already.

    Raises
    ------
    MissingError
        Nothing was counted.
    """
    data = negative_data(diagnostics(view) if answers is None else answers)
    if not data["counted"].any():
        raise MissingError(
            problem("no values were counted in any histogram", where="plot negative")
        )
    style = figures.heatmap_style(100.0 * data["negative_fraction"].values)
    draw = partial(draw_negative, style=style)
    figure = heatmap_figure(data, draw, style, "values below zero (% of counted)")
    headline(figure, "share of negative values by block and noise", site, "")
    yield Page(page_stem("negative", site), figure, table(data))


def negative_data(found: xr.Dataset) -> xr.Dataset:
    """What `analysis.diagnostics` says of values below zero.

    Returns
    -------
    Dataset
        `negative_fraction` and `counted` (step, layer); `negative_fraction_all` (layer), all steps
        together, each weighted by what it counted. NaN where nothing was counted.
    """
    return found[["negative_fraction", "negative_fraction_all", "counted"]].compute()


def draw_negative(
    data: xr.Dataset, ax: Axes, *, style: tuple[Normalize, Colormap] | None = None
) -> Axes:
    """Heat map of the negative share in %, at the right of each row its value over all steps."""
    percent = data.assign(percent=100.0 * data["negative_fraction"])
    figures.draw_heatmap(percent, ax, variable="percent", style=style)
    side = ax.get_yaxis_transform()
    small: dict[str, Any] = {"transform": side, "fontsize": "x-small", "va": "center"}
    for block, share in zip(
        data["block"].values, data["negative_fraction_all"].values, strict=True
    ):
        ax.text(1.02, block, "-" if np.isnan(share) else f"{100.0 * share:.1f} %", **small)
    ax.text(1.02, 1.01, "all steps", transform=ax.transAxes, fontsize="x-small", va="bottom")
    return ax

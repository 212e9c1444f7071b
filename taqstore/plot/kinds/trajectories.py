"""Clip bounds and shifts over sigma, with the polynomials fitted through the bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from taqstore.analysis import schedule, shifts
from taqstore.analysis.schedule import evaluate
from taqstore.errors import MissingError
from taqstore.names import PROJECTIONS
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.labels import draw_lines, name_blocks, thin_style
from taqstore.plot.parts.panels import (
    Page,
    block_bar,
    headline,
    label_outer,
    page_stem,
    site_pages,
    table,
)
from taqstore.plot.parts.views import linear_view, noise_coordinate
from taqstore.statistics.moving_average import SHIFT_MOMENTUM

_FINE = 200
LABELS = {
    "alpha": "clip bound α\n(dimensionless)",
    "shift_absmax": "|shift|, largest over channels\n(dimensionless)",
    "shift_median": "|shift|, median over channels\n(dimensionless)",
}


def trajectory_pages(
    groups: Mapping[str, xr.Dataset], *, momentum: float = SHIFT_MOMENTUM
) -> Iterator[Page]:
    """One page per site: a row per quantity, a column per stream, a colour per block."""
    return site_pages(groups, partial(_pages, momentum=momentum))


def trajectory_data(
    dataset: xr.Dataset, *, site: str = "", momentum: float = SHIFT_MOMENTUM
) -> xr.Dataset:
    """Clip bounds, the polynomials of `analysis.schedule` and the size of the shift.

    Parameters
    ----------
    dataset
        One group with clip bounds or extrema.
    momentum
        Of the shift, see `analysis.shifts`.

    Returns
    -------
    Dataset
        (step, layer): `alpha`, `fitted` and, where the source tells a shift, `shift_absmax` and
        `shift_median`, the largest and the median over channels of its magnitude. (layer):
        `degree` and `r2` of the fit. (layer, power): its `coefficient`.

    Raises
    ------
    MissingError
        There are neither clip bounds nor extrema, or no sigma.
    TaqError
        The stored shift was reduced with another momentum.
    """
    result = schedule(dataset)[["alpha", "fitted", "degree", "r2", "coefficient"]]
    try:
        shift = abs(shifts(dataset, momentum=momentum)["shift"])
    except MissingError:
        pass  # most pooled sites have none: the rows of the shift are left out
    else:
        result["shift_absmax"] = shift.max("channel", skipna=False)
        result["shift_median"] = shift.compute().median("channel", skipna=False)
    return linear_view(result, [str(name) for name in result.data_vars], site=site).compute()


def draw_trajectory(
    data: xr.Dataset, ax: Axes, *, variable: str, norm: Normalize | None = None
) -> Axes:
    """`variable` of every layer against sigma: points, and their fit as a curve or a line through.

    Only clip bounds are fitted; their curves run from the first to the last sigma of the fit.
    """
    _, x = noise_coordinate(data)
    norm, colors = norm or figures.block_norm(data), figures.line_colors()
    points = data[variable].transpose("layer", "step").values
    lines = fit_curves(data) if variable == "alpha" else [(x, dots) for dots in points]
    style, shades = thin_style(len(points)), colors(norm(data["block"].values))
    if not style["markersize"]:
        curves = [np.column_stack(line) for line in lines]
        draw_lines(ax, curves, shades, ["-"] * len(curves), style["linewidth"])
    # Of fits the data are worth seeing however many there are.
    size = 2.5 if variable == "alpha" else style["markersize"]
    for dots, line, color in zip(points, lines, shades, strict=True):
        if style["markersize"]:
            ax.plot(*line, "-", linewidth=style["linewidth"], color=color)
        if size:
            ax.plot(x, dots, "o", markersize=size, color=color)
    ax.set_ylabel(LABELS[variable])
    return figures.noise_axis(data, ax)


def fit_curves(data: xr.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sigma and value of every layer's polynomial, between its data as well; empty without fit."""
    _, x = noise_coordinate(data)
    known = np.isfinite(data["fitted"].transpose("layer", "step").values)
    coefficient = data["coefficient"].transpose("layer", "power").values
    curves = []
    for row, there in zip(coefficient, known, strict=True):
        fine = np.linspace(x[there].max(), x[there].min(), _FINE) if there.any() else x[:0]
        curves.append((fine, evaluate(row, fine)))
    return curves


def _pages(dataset: xr.Dataset, site: str, *, momentum: float) -> Iterator[Page]:
    data = trajectory_data(dataset, site=site, momentum=momentum)
    rows = table(data.drop_vars("coefficient").drop_dims("power", errors="ignore"))
    yield Page(page_stem("trajectories", site), _figure(data, site), rows)


def _figure(data: xr.Dataset, site: str) -> Figure:
    streams = [s for s in figures.STREAM_NAMES if s in data["stream"].values]
    projections = [p for p in ("", *PROJECTIONS) if p in data["projection"].values]
    rows = list(product([name for name in LABELS if name in data], projections))
    size = (2.0 + 4.8 * len(streams), 1.4 + 2.9 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(streams), sharex=True, sharey="row", squeeze=False)
    norm = figures.block_norm(data)
    for (row, (variable, projection)), (column, stream) in product(
        enumerate(rows), enumerate(streams)
    ):
        part, ax = _of_panel(data, stream, projection), axes[row, column]
        draw_trajectory(part, ax, variable=variable, norm=norm)
        values = data[variable].values
        if figures.is_wide(values[values > 0]):
            ax.set_yscale("log")
        stream_name = f"{figures.STREAM_NAMES[stream]} stream {projection}".strip()
        ax.set_title(_fit_title(stream_name, part) if variable == "alpha" else stream_name)
    label_outer(axes)
    for (row, (variable, projection)), (column, stream) in product(
        enumerate(rows), enumerate(streams)
    ):
        part = _of_panel(data, stream, projection)
        name_blocks(part, axes[row, column], variable=variable, norm=norm)
    block_bar(figure, axes, norm)
    what = "clip bounds and shifts" if "shift_absmax" in data else "clip bounds"
    headline(
        figure, f"{what} over noise", site, "points: data; curves: fits of α; at their ends: blocks"
    )
    return figure


def _of_panel(data: xr.Dataset, stream: str, projection: str) -> xr.Dataset:
    chosen = (data["stream"] == stream) & (data["projection"] == projection)
    return data.isel(layer=np.flatnonzero(chosen))


def _fit_title(stream: str, data: xr.Dataset) -> str:
    """The stream, and how well its polynomials fit."""
    r2 = data["r2"].values[np.isfinite(data["r2"].values)]
    if not r2.size:
        return f"{stream}: fewer than 4 σ, no fit"
    return f"{stream}: R² median {np.median(r2):.2f}, least {r2.min():.2f}"

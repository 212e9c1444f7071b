"""Signal-to-noise ratio of quantizing every layer at every step, all sites on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import xarray as xr
from matplotlib.colors import Colormap, Normalize

from taqstore.analysis import error
from taqstore.errors import MissingError, problem
from taqstore.names import site_of
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.grid import site_grid, site_table
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import linear_view

BITS = 8


def sqnr_data(
    groups: Mapping[str, xr.Dataset],
    *,
    bits: int = BITS,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> dict[str, xr.Dataset]:
    """By site, per (step, layer): `sqnr` in dB and `error` of `analysis.error` at the absmax clip.

    Symmetric, one clip bound per layer and step; q, k and v are layers of their own where they
    differ. `answers` is what the analysis says of the groups, by path, where it is known already.
    """
    sites, known = {}, answers or {}
    for path, dataset in groups.items():
        site = site_of(path)
        priced = known[path] if path in known else error(dataset, bits=bits)
        sites[site] = linear_view(priced, ["sqnr", "error"], site=site).compute()
    return sites


def sqnr_pages(
    groups: Mapping[str, xr.Dataset],
    *,
    bits: int = BITS,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> Iterator[Page]:
    """One page: a panel per stream and site; `answers` as in `sqnr_data`.

    Raises
    ------
    MissingError
        Nothing was counted in any histogram.
    """
    sites = sqnr_data(groups, bits=bits, answers=answers)
    values = np.concatenate([data["sqnr"].values.ravel() for data in sites.values()])
    if not np.isfinite(values).any():
        raise MissingError(problem("no values were counted in any histogram", where="plot sqnr"))
    style = _style(values[np.isfinite(values)])
    draw = partial(figures.draw_heatmap, variable="sqnr", style=style)
    figure = site_grid(sites, draw, style, "expected SQNR (dB)")
    figure.suptitle(f"SQNR at {bits} bits: symmetric, clipped at the absmax of each layer and step")
    yield Page(f"sqnr_{bits}bit", figure, site_table(sites))


def _style(values: np.ndarray) -> tuple[Normalize, Colormap]:
    """Diverging about 0 dB, where the error is as large as the signal, if there are such layers."""
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return figures.heatmap_style(values)
    # Decibels are logarithms: however wide their range, the scale stays linear.
    return figures.linear_norm(low, high), figures.sequential_colors()

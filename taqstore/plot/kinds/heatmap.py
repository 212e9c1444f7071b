"""Heat maps by block and noise: mean, standard deviation, absmax and shift."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from taqstore.analysis import diagnostics
from taqstore.analysis.shared.inputs import first_complete
from taqstore.errors import MissingError, problem
from taqstore.names import EXTREMA, MOMENTS
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.panels import Page, averaged, headline, heatmap_figure, page_stem, table
from taqstore.plot.parts.views import extrema

LABELS = {
    "mean": "mean, median over channels",
    "std": "std, median over channels",
    "absmax": "absmax over channels",
    "shift": "absmax over channels of the shift",
}


def heatmap_pages(view: xr.Dataset, site: str) -> Iterator[Page]:
    """One page per quantity: mean, std, absmax and shift where known, a panel per stream."""
    data = heatmap_data(view)
    known = [str(name) for name, array in data.data_vars.items() if np.isfinite(array).any()]
    if not known:
        what = f"{' and '.join(map(str, data.data_vars))} hold no values for these layers"
        raise MissingError(problem(what, where="plot heatmap"))
    for variable in known:
        style = figures.heatmap_style(data[variable].values)
        draw = partial(figures.draw_heatmap, variable=variable, style=style)
        figure = heatmap_figure(data, draw, style, LABELS[variable])
        note = averaged(data) if variable == "absmax" else ""
        headline(figure, f"{variable} by block and noise", site, note)
        yield Page(page_stem("heatmap", site, variable), figure, table(data[[variable]]))


def heatmap_data(view: xr.Dataset) -> xr.Dataset:
    """Per (step, layer): what the view has of `mean` and `std`, `absmax`, and `shift`.

    `mean` and `std` are medians over channels, `absmax` is the largest magnitude over channels and
    `shift` the largest ``|shift|``.
    """
    data = xr.Dataset()
    if first_complete(view, MOMENTS):
        medians = diagnostics(view)[["step_mean", "step_std"]]
        data = medians.rename(step_mean="mean", step_std="std").compute()
    if first_complete(view, EXTREMA):
        pair = extrema(view).compute()
        size = pair["upper"].where(pair["upper"] > -pair["lower"], -pair["lower"])
        data = data.assign(absmax=size.max("channel")).assign_attrs(pair.attrs)
    if "shift" in view.variables:
        shift: xr.DataArray = abs(view["shift"].astype(np.float64))
        data["shift"] = shift.max(dim="channel").compute()
    return data

"""Summary table of a group, one row per layer: the table the Phase 2 script printed.

Its negative fraction differs from the script's, which left out the bin just below zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from taqstore.plot.parts.numbers import negative_data, widest
from taqstore.plot.parts.views import (
    BINS,
    EXTREMA,
    MOMENTS,
    extrema,
    first_complete,
    linear_view,
    moments,
    require,
)

COLUMNS = {
    "median_mean": "mean over steps of the median over channels of the mean",
    "median_std": "mean over steps of the median over channels of the standard deviation",
    "median_range": "median over steps and channels of max - min",
    "max_range": "largest max - min over steps and channels",
    "negative_fraction": "share of counted values below zero, all steps together",
    "outlier_channels": "channels among the widest 2 % (at least 1) at one step or more",
}


def layer_summary(
    dataset: xr.Dataset, *, site: str = "", layers: Sequence[str] | None = None
) -> xr.Dataset:
    """Summary of every layer over all steps, the variables of `COLUMNS` along `layer`.

    Works on `pooled/postgelu/<site>` and, with batches merged, on `activations/<site>`. A column
    whose variables the group does not hold is left out.

    Raises
    ------
    MissingError
        The group holds no channel extrema, or a layer is not known.
    """
    ranges = require(dataset, EXTREMA, where="layer summary")
    statistics, histograms = (first_complete(dataset, kind) for kind in (MOMENTS, BINS))
    names = dict.fromkeys((*ranges, *statistics, *histograms))
    view = linear_view(dataset, list(names), site=site, layers=layers)
    summary = _range_columns(view)
    if statistics:
        summary = summary.merge(_moment_columns(view))
    if histograms:
        summary["negative_fraction"] = negative_data(view)["negative_fraction_all"]
    ordered = summary[[name for name in COLUMNS if name in summary]]
    for name in ordered.data_vars:
        ordered[name].attrs["long_name"] = COLUMNS[str(name)]
    return ordered


def _range_columns(view: xr.Dataset) -> xr.Dataset:
    pair = extrema(view).compute()
    ranges = (pair["upper"] - pair["lower"]).transpose("step", "layer", "channel")
    ever_outlier = widest(ranges.values).any(axis=0)
    return xr.Dataset(
        {
            "median_range": ranges.median(["step", "channel"]),
            "max_range": ranges.max(["step", "channel"]),
            "outlier_channels": ("layer", ever_outlier.sum(axis=1)),
        }
    )


def _moment_columns(view: xr.Dataset) -> xr.Dataset:
    medians = moments(view).compute().median("channel")
    return medians.mean("step").rename(mean="median_mean", std="median_std")

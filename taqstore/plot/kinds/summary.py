"""Summary table of a group, one row per layer: the table the Phase 2 script printed.

Its negative fraction differs from the script's, which left out the bin just below zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from taqstore.analysis import diagnostics
from taqstore.analysis.shared.inputs import first_complete
from taqstore.names import BINS, EXTREMA, MOMENTS
from taqstore.plot.parts.views import linear_view, require

COLUMNS = {
    "median_mean": "mean over steps of the median over channels of the mean",
    "median_std": "mean over steps of the median over channels of the standard deviation",
    "median_range": "median over steps and channels of max - min",
    "max_range": "largest max - min over steps and channels",
    "negative_fraction": "share of counted values below zero, all steps together",
    "outlier_channels": "channels among the widest 2 % (at least 1) at one step or more",
}
_NAMES = {"negative_fraction": "negative_fraction_all", "outlier_channels": "widest_count"}


def layer_summary(
    dataset: xr.Dataset, *, site: str = "", layers: Sequence[str] | None = None
) -> xr.Dataset:
    """`analysis.diagnostics` of every layer over all steps, the variables of `COLUMNS` by layer.

    Works on `pooled/postgelu/<site>` and, with batches merged, on `activations/<site>`. A column
    whose variables the group does not hold is left out.

    Raises
    ------
    MissingError
        The group holds no channel extrema, or a layer is not known.
    """
    names = {
        *require(dataset, EXTREMA, where="layer summary"),
        *first_complete(dataset, MOMENTS),
        *first_complete(dataset, BINS),
    }
    view = linear_view(dataset, sorted(names), site=site, layers=layers)
    found = diagnostics(view)
    columns = {column: _NAMES.get(column, column) for column in COLUMNS}
    known = {column: found[name] for column, name in columns.items() if name in found}
    summary = xr.Dataset(known).compute()
    for name, meaning in COLUMNS.items():
        if name in summary:
            summary[name].attrs["long_name"] = meaning
    return summary

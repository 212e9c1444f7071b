"""The numbers each figure shows: small, loaded, tidy Datasets made from one `sources.linear_view`.

No picture is drawn from anything else, and the CSV beside a picture is `table` of the same Dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.files.tables import to_table
from taqstore.plot.parts.views import EXTREMA, MOMENTS, bins, extrema, first_complete, moments

if TYPE_CHECKING:
    import pandas as pd

OUTLIER_FRACTION = 0.02
"""Share of channels called outliers by range (rule of the Phase 2 script)."""

DISPLAY_BINS = 300
"""Bins narrower than the shown axis divided by this are merged with their neighbours."""

_CORE = (0.005, 0.995)
_WIDE = 10.0


def range_data(view: xr.Dataset) -> xr.Dataset:
    """Per (step, layer): `median_range` over channels, `tensor_min`, `tensor_max`."""
    pair = extrema(view).compute()
    return xr.Dataset(
        {
            "median_range": (pair["upper"] - pair["lower"]).median("channel"),
            "tensor_min": pair["lower"].min("channel"),
            "tensor_max": pair["upper"].max("channel"),
        },
        attrs=pair.attrs,
    )


def channel_data(view: xr.Dataset) -> xr.Dataset:
    """Per channel of the view's only layer: extrema over all steps, and which are outliers.

    Returns
    -------
    Dataset over channel
        `lower`, `upper`, `range`; `rank` (0: widest); `outlier` (among the `outlier_count` widest
        of the ranges shown); `outlier_steps` (number of steps where the channel is among the
        widest of that step).
    """
    pair = extrema(view).isel(layer=0).transpose("step", "channel").compute()
    lower, upper = pair["lower"].min("step"), pair["upper"].max("step")
    width = (upper - lower).values
    order = np.argsort(-width, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    per_step = widest((pair["upper"] - pair["lower"]).values)
    return xr.Dataset(
        {
            "lower": lower,
            "upper": upper,
            "range": ("channel", width),
            "rank": ("channel", rank),
            "outlier": ("channel", widest(width)),
            "outlier_steps": ("channel", per_step.sum(axis=0)),
        },
        coords={"channel": np.arange(len(width))},
        attrs={**pair.attrs, "steps": pair.sizes["step"]},
    )


def outlier_count(channels: int) -> int:
    """How many of `channels` are called outliers: ``max(1, int(0.02 * channels))``."""
    return max(1, int(OUTLIER_FRACTION * channels))


def widest(ranges: np.ndarray) -> np.ndarray:
    """Mask of the `outlier_count` largest values along the last axis; NaN is never one.

    Of equal ranges the lower channel index counts as the wider.
    """
    order = np.argsort(-ranges, axis=-1, kind="stable")
    mask = np.zeros(ranges.shape, dtype=bool)
    np.put_along_axis(mask, order[..., : outlier_count(ranges.shape[-1])], True, axis=-1)
    outliers: np.ndarray = np.logical_and(mask, ~np.isnan(ranges))
    return outliers


def heatmap_data(view: xr.Dataset) -> xr.Dataset:
    """Per (step, layer): what the view has of `mean` and `std`, `absmax`, and `shift`.

    `mean` and `std` are medians over channels, `absmax` is the largest magnitude over channels and
    `shift` the largest ``|shift|``.
    """
    data = xr.Dataset()
    if first_complete(view, MOMENTS):
        medians = moments(view).compute().median("channel")
        data = data.assign({name: medians[name] for name in ("mean", "std")})
    if first_complete(view, EXTREMA):
        pair = extrema(view).compute()
        size = pair["upper"].where(pair["upper"] > -pair["lower"], -pair["lower"])
        data = data.assign(absmax=size.max("channel")).assign_attrs(pair.attrs)
    if "shift" in view.variables:
        shift: xr.DataArray = abs(view["shift"].astype(np.float64))
        data["shift"] = shift.max(dim="channel").compute()
    return data


def negative_data(view: xr.Dataset) -> xr.Dataset:
    """Share of counted values below zero, from histograms.

    Every bin below zero counts, the one just below it included. A bin that straddles zero counts
    by the share of its width that lies below: values are taken as spread evenly inside it. In
    float-bit-prefix bins and in the Phase 2 bins zero is an edge and the share is exact.

    Returns
    -------
    Dataset
        `negative_fraction` and `counted` (step, layer); `negative_fraction_all` (layer), all steps
        together, each weighted by what it counted. NaN where nothing was counted.
    """
    histogram = bins(view).compute()
    below = (histogram["counts"] * _share_below_zero(histogram)).sum("bin", skipna=False)
    counted = histogram["counts"].sum("bin").astype(np.int64)
    below, known = below.where(counted > 0, 0.0), counted.where(counted > 0)
    everything = counted.sum("step")
    return xr.Dataset(
        {
            "negative_fraction": below / known,
            "negative_fraction_all": below.sum("step") / everything.where(everything > 0),
            "counted": counted,
        }
    )


def _share_below_zero(histogram: xr.Dataset) -> xr.DataArray:
    left, right = histogram["left"], histogram["right"]
    inside = -left / (right - left).where(right > left, 1.0)
    # `where` keeps its own values where the condition holds.
    return inside.where(right > 0, 1.0).where(left < 0, 0.0)


def histogram_data(view: xr.Dataset) -> xr.Dataset:
    """Histogram of the view's only layer: `count`, `density` (step, bin), bounds `left`, `right`.

    density = count / (counted values * bin width), so that bins of any width compare. Bins shared
    by all steps and too narrow to be seen (float-bit-prefix bins near zero) are merged with their
    neighbours on the same side of zero. `linear_width` in the attributes is 0 for a linear axis;
    otherwise the axis is asinh, linear within that distance of zero.

    Raises
    ------
    MissingError
        The layer's histogram is empty at every step.
    """
    data = bins(view).isel(layer=0).transpose("step", "bin").compute()
    name = str(view["layer"].values[0])
    left, right, counts = data["left"].values, data["right"].values, data["counts"].values
    if not counts.any():
        raise MissingError(problem("no values were counted in its histogram", where=name))
    linear_width = 0.0
    if left.ndim == 1:
        linear_width = _linear_width(left, right, counts.sum(axis=0))
        left, right, counts = _merge_narrow(left, right, counts, linear_width)
    total = counts.sum(axis=1, keepdims=True).astype(np.float64)
    width = right - left
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    bound_dims = ("step", "bin")[-left.ndim :]
    return xr.Dataset(
        {
            "count": (("step", "bin"), counts),
            "density": (("step", "bin"), share / width),
            "left": (bound_dims, left),
            "right": (bound_dims, right),
        },
        coords={"step": data["step"], **_step_coords(data)},
        attrs={"linear_width": linear_width},
    )


def _step_coords(data: xr.Dataset) -> dict[str, xr.DataArray]:
    return {str(k): v for k, v in data.coords.items() if v.dims == ("step",) and k != "step"}


def _linear_width(left: np.ndarray, right: np.ndarray, total: np.ndarray) -> float:
    """Distance from zero within which an asinh axis is linear; 0 where a linear axis serves."""
    used = np.flatnonzero(total)
    span = right[used[-1]] - left[used[0]]
    cumulated = np.cumsum(total) / total.sum()
    low, high = np.searchsorted(cumulated, _CORE)
    core = right[high] - left[low]
    return float(core / 4) if span > _WIDE * core else 0.0


def _merge_narrow(
    left: np.ndarray, right: np.ndarray, counts: np.ndarray, linear_width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    used = np.flatnonzero(counts.sum(axis=0))
    shown = slice(used[0], used[-1] + 1)
    left, right, counts = left[shown], right[shown], counts[:, shown]

    def place(x: np.ndarray) -> np.ndarray:
        return np.arcsinh(x / linear_width) if linear_width else x

    cell = (place(right[-1:]) - place(left[:1])) / DISPLAY_BINS
    # Cells start at zero, so bins on its two sides never share one.
    starts = np.flatnonzero(np.diff(np.floor(place(left) / cell), prepend=-np.inf))
    ends = np.append(starts[1:], len(left)) - 1
    return left[starts], right[ends], np.add.reduceat(counts, starts, axis=1)


def table(data: xr.Dataset) -> pd.DataFrame:
    """Rows of a figure's Dataset: one per coordinate tuple, bins without values left out."""
    # What is one number for several rows (bounds of shared bins, all steps) is repeated in each.
    rows = to_table(xr.broadcast(data)[0])
    return rows[rows["count"] > 0] if "count" in rows else rows

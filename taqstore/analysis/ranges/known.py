"""Single values that a store knows to be among those a histogram counted."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import calls
from taqstore.analysis.shared.inputs import Array, is_observed, over
from taqstore.statistics.selected import least

KEPT = 4
"""Channels on either side whose extremum is taken: isolated outliers are few and far out."""
KNOWN = "known_value"
"""Variable that has them where the extrema themselves were left out: see `analysis.held`."""


def known_values(dataset: xr.Dataset, *, static: bool = False) -> list[xr.DataArray]:
    """Extrema of the channels that reach furthest down and up, for `rows.parts`; lazy.

    The least and the largest value of the tensor are among them.

    Parameters
    ----------
    static
        Of all steps together.

    Returns
    -------
    One array ([step, ]layer, value), float64, NaN where there are fewer channels; none where the
    histogram is not of observations or no extrema of the same values stand beside it.
    """
    if not is_observed(dataset):
        return []
    if KNOWN in dataset.data_vars:
        return [_of_kept(dataset[KNOWN], static)]
    if not {"min", "max"} <= set(dataset.data_vars):
        return []
    value = over(
        _of_channels,
        dataset["min"],
        dataset["max"],
        core=(("channel",), ("channel",)),
        out=(("value",),),
        sizes={"value": 2 * KEPT},
    )
    dims = [dim for dim in calls(static) if dim in value.dims]
    if not dims:
        return [value]
    # Left to itself dask cuts the other dimensions up when it joins blocks of these.
    value = value.chunk(dict.fromkeys(dims, -1)) if value.chunks else value
    return [over(_of_calls, value, core=((*dims, "value"),), out=(("value",),), axes=len(dims))]


def kept_values(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """`known_values` to keep in the place of the extrema they are taken from, in their dtype.

    Returns
    -------
    dict
        `KNOWN` ([step, ]layer, value), whose attribute `calls` says whether they are of several
        calls; nothing where the dataset has none.
    """
    found = known_values(dataset)
    if not found:
        return {}
    of_calls = "batch" in dataset["min"].dims
    values = found[0].astype(np.result_type(dataset["min"], dataset["max"]))
    return {KNOWN: values.assign_attrs(calls=int(of_calls))}


def _of_kept(value: xr.DataArray, static: bool) -> xr.DataArray:
    """As `known_values`; the attribute `calls` is of `kept_values`."""
    found = value.astype(np.float64)
    if not static or "step" not in value.dims:
        return found
    merge = _of_sides if value.attrs["calls"] else _of_calls
    core = (("step", "value"),)
    merged: xr.DataArray = over(merge, found, core=core, out=(("value",),), axes=1)
    return merged


def _of_sides(value: Array, *, axes: int) -> Array:
    """The outermost of the outermost of calls: halves apart, so that nothing counts twice."""
    sides = np.split(value, 2, axis=-1)
    low, high = (side.reshape(*side.shape[: side.ndim - axes - 1], -1) for side in sides)
    return np.concatenate([least(low, KEPT), least(high, KEPT, largest=True)], axis=-1)


def _of_channels(lower: Array, upper: Array) -> Array:
    # In the dtype of the store, block by block: what is kept is small.
    ends = [least(lower, KEPT), least(upper, KEPT, largest=True)]
    return np.concatenate(ends, axis=-1).astype(np.float64)


def known_of_batches(lower: Array, upper: Array) -> Array:
    """`known_values` ``(..., value)`` of extrema ``(batch, ..., channel)``."""
    return _of_calls(np.moveaxis(_of_channels(lower, upper), 0, -2), axes=1)


def _of_calls(value: Array, *, axes: int) -> Array:
    return outermost(value.reshape(*value.shape[: value.ndim - axes - 1], -1))


def outermost(values: Array) -> Array:
    """The `KEPT` least and the `KEPT` largest along the last axis; NaN where there are fewer."""
    return np.concatenate([least(values, KEPT), least(values, KEPT, largest=True)], axis=-1)

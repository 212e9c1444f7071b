"""Single values that a store knows to be among those a histogram counted."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import calls
from taqstore.analysis.shared.inputs import Array, observed_histogram, over

KEPT = 4
"""Channels on either side whose extremum is taken: isolated outliers are few and far out."""


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
    if observed_histogram(dataset) is None or not {"min", "max"} <= set(dataset.data_vars):
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


def _of_channels(lower: Array, upper: Array) -> Array:
    # In the dtype of the store, block by block: what is kept is small.
    return np.concatenate([_least(lower), -_least(-upper)], axis=-1).astype(np.float64)


def _of_calls(value: Array, *, axes: int) -> Array:
    return outermost(value.reshape(*value.shape[: value.ndim - axes - 1], -1))


def outermost(values: Array) -> Array:
    """The `KEPT` least and the `KEPT` largest along the last axis; NaN where there are fewer."""
    return np.concatenate([_least(values), -_least(-values)], axis=-1)


def _least(values: Array) -> Array:
    fewer = KEPT - values.shape[-1]
    if fewer >= 0:
        return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, fewer)], constant_values=np.nan)
    return np.partition(values, KEPT - 1, axis=-1)[..., :KEPT]

"""The largest value of every cell of statistics (batch, step, layer), and what overflows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import (
    Array,
    first_complete,
    over,
    require,
    tensor_bounds,
)
from taqstore.analysis.shared.number_limits import (
    QMAX,
    largest_by_absmax,
    largest_by_channels,
    largest_rms,
)
from taqstore.kinds.nonfinite import images_of, laid_out, observed_counts, pooled_counts
from taqstore.names import site_of
from taqstore.quantization.spread import row_slices

_NAME = "overflow"
# Values of channels that are taken as float64 at a time.
_ROW_BLOCK = 1 << 16


@dataclass(frozen=True)
class Cells:
    """What is asked of one site, over (batch, step, layer); one batch where a source has none.

    Parameters
    ----------
    site, layers, steps, images
        Labels of the axes; the images of each batch.
    absmax
        Largest finite ``|x|``; NaN where there is none.
    nonfinite
        int64 (batch, step, layer, kind): NaN, +Inf, -Inf.
    accumulated, typical
        Largest int8 product by the extrema of channels, and its RMS bound; NaN where the source
        lacks what it takes. See `taqstore.analysis.shared.number_limits`.
    channels
        Of the site's tensors, or 0.
    """

    site: str
    layers: list[str]
    steps: list[int]
    images: list[tuple[int, ...]]
    absmax: Array
    nonfinite: Array
    accumulated: Array
    typical: Array
    channels: int

    @property
    def reached(self) -> Array:
        """`absmax`, infinite where a value is no number."""
        found: Array = np.where(self.nonfinite.any(axis=-1), np.inf, self.absmax)
        return found

    @property
    def by_channels(self) -> float:
        """Largest int8 product whatever the inputs are."""
        return largest_by_channels(self.channels) if self.channels else np.nan


def cells_of(path: str, dataset: xr.Dataset) -> Cells:
    """Cells of a group; reads its extrema, and its moments where it has them.

    The step size of int8 inputs is that of the largest ``|x|`` of a step and layer over all
    batches, as of `scales` with the rule absmax.

    Raises
    ------
    MissingError
        It has no extrema.
    """
    names = first_complete(dataset, (("tensor_min", "tensor_max"), ("min", "max")))
    absmax = _absmax(dataset, names)
    dims = [dim for dim in ("batch",) if dim in absmax.dims]
    step = absmax.max(dims, skipna=True) / QMAX
    arrays = {"absmax": absmax}
    arrays |= _products(dataset, step)
    held = xr.Dataset(arrays).compute()
    laid: dict[str, Any] = {str(name): laid_out(array) for name, array in held.items()}
    missing = np.full(laid["absmax"].shape, np.nan)
    counts = observed_counts if "nonfinite" in dataset.data_vars else pooled_counts
    return Cells(
        site_of(path),
        [str(layer) for layer in np.atleast_1d(dataset["layer"].values)],
        [int(label) for label in np.atleast_1d(dataset["step"].values)],
        images_of(dataset),
        laid["absmax"],
        counts(dataset),
        laid.get("accumulated", missing),
        laid.get("typical", missing),
        dataset.sizes.get("channel", 0),
    )


def _absmax(dataset: xr.Dataset, names: Any) -> xr.DataArray:
    if names:
        low, high = (abs(dataset[name].astype(np.float64)) for name in names)
        largest: xr.DataArray = low.where(low > high, high)
        dims = [dim for dim in ("channel", "projection") if dim in largest.dims]
        return largest.max(dims, skipna=True)
    for name in ("tensor_absmax", "alpha"):
        if name in dataset.data_vars:
            return _without_projection(dataset[name].astype(np.float64))
    require(dataset, ("min", "max"), ("avg_min", "avg_max"), analysis=_NAME)
    return _without_projection(tensor_bounds(dataset, analysis=_NAME).absmax)


def _without_projection(values: xr.DataArray) -> xr.DataArray:
    return values.max("projection") if "projection" in values.dims else values


def _products(dataset: xr.Dataset, step: xr.DataArray) -> dict[str, xr.DataArray]:
    """int8 products, of what the source has true extrema and moments of."""
    found: dict[str, xr.DataArray] = {}
    core = (("channel",), ("channel",))
    if {"min", "max"} <= set(dataset.data_vars) and "channel" in dataset["min"].dims:
        ends = dataset["min"], dataset["max"]
        found["accumulated"] = over(_by_absmax, *ends, step, core=(*core, ()))
    if {"mean", "m2", "count"} <= set(dataset.data_vars):
        moments = dataset["mean"], dataset["m2"]
        energy = over(_energy, *moments, dataset["count"], core=(*core, ()))
        channels = dataset.sizes["channel"]
        found["typical"] = over(largest_rms, energy, step, core=((), ()), channels=channels)
    return {name: _without_projection(array) for name, array in found.items()}


def _by_absmax(low: Array, high: Array, step: Array) -> Array:
    shape = low.shape[:-1]
    steps = np.broadcast_to(step, shape).ravel()
    return _row_by_row(_absmax_product, low, high, each=steps).reshape(shape)


def _absmax_product(low: Array, high: Array, step: Array) -> Array:
    absmax = np.maximum(abs(low.astype(np.float64)), abs(high.astype(np.float64)))
    return largest_by_absmax(absmax, step)


def _energy(mean: Array, m2: Array, count: Array) -> Array:
    """Sum over channels of the mean of x^2; `count` values are of each channel."""
    shape = mean.shape[:-1]
    counts = np.broadcast_to(count, shape).ravel()
    return _row_by_row(_mean_square, mean, m2, each=counts).reshape(shape)


def _mean_square(mean: Array, m2: Array, count: Array) -> Array:
    mean, m2 = mean.astype(np.float64), m2.astype(np.float64)
    square: Array = np.square(mean) + m2 / np.maximum(count, 1)[..., None]
    energy: Array = np.nansum(square, axis=-1)
    return energy


def _row_by_row(kernel: Callable[..., Array], *wide: Array, each: Array) -> Array:
    """``kernel(*wide, each)`` of arrays ``(..., channel)`` and ``(row)``, some rows at a time.

    What it makes beside its results then stays in the processor's cache.
    """
    rows = [array.reshape(len(each), array.shape[-1]) for array in wide]
    found = np.empty(len(each))
    for part in row_slices(len(each), wide[0].shape[-1], block=_ROW_BLOCK):
        found[part] = kernel(*(array[part] for array in rows), each[part])
    return found

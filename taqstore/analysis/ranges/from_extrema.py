"""Clip ranges from extrema: over all calls, averaged, or in a moving average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip, calls
from taqstore.analysis.shared.inputs import Array, Bounds, Symmetric, over, require, tensor_alpha
from taqstore.errors import TaqError, problem
from taqstore.quantization.search import Scheme
from taqstore.statistics.moving_average import ema_float32


def extrema(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """Least and largest value of all calls; see `clip.clip_range`."""
    bounds = _all_extrema(dataset, clip, scheme, analysis)
    dims = _present(bounds, static)
    if not dims:
        return bounds
    return Bounds(bounds.lower.min(dims, skipna=False), bounds.upper.max(dims, skipna=False))


def average(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """Mean over calls of their extrema; see `clip.clip_range`."""
    # What arrives averaged is averaged; extrema without their batches cannot be any more.
    require(dataset, ("batch", "min", "max"), ("avg_min", "avg_max"), analysis=analysis)
    bounds = _extrema(dataset, clip, analysis)
    dims = _present(bounds, static)
    return Bounds(*(end.mean(dims, skipna=False) for end in bounds))


def ema(dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str) -> Bounds:
    """Moving average over calls of their extrema; see `clip.clip_range`."""
    require(dataset, ("batch", "min", "max"), analysis=analysis)
    bounds, axes = _extrema(dataset, clip, analysis), calls(static)
    ordered = (_ordered(end, clip.order) for end in bounds)
    keep = cast(float, clip.momentum)
    return Bounds(*(over(_ema, end, core=(axes,), axes=len(axes), keep=keep) for end in ordered))


def _present(bounds: Bounds, static: bool) -> list[str]:
    return [dim for dim in calls(static) if dim in bounds.lower.dims]


def _all_extrema(dataset: xr.Dataset, clip: Clip, scheme: Scheme, analysis: str) -> Bounds:
    if clip.per != "tensor" or not scheme.symmetric:
        return _extrema(dataset, clip, analysis)
    # A source may hold nothing but clip bounds, or its own idea of the absmax.
    alpha = tensor_alpha(dataset, analysis=analysis)
    return Bounds(-alpha, alpha) if "alpha" in dataset.data_vars else Symmetric.of(alpha)


def _extrema(dataset: xr.Dataset, clip: Clip, analysis: str) -> Bounds:
    """Extrema per call (or as pooled) and per tensor, channel or channel group, float64."""
    rollups = ("tensor_min", "tensor_max")
    if clip.per == "tensor" and set(rollups) <= set(dataset.data_vars):
        return Bounds(*(dataset[name].astype(np.float64) for name in rollups))
    names = require(dataset, ("min", "max"), ("avg_min", "avg_max"), analysis=analysis)
    bounds = Bounds(*(dataset[name].astype(np.float64) for name in names))
    if clip.per == "tensor":
        return bounds.over_channels()
    if clip.per == "channel":
        return bounds
    size = cast(int, clip.group_size)
    return Bounds(
        _grouped(bounds.lower, np.minimum, size), _grouped(bounds.upper, np.maximum, size)
    )


def _grouped(values: xr.DataArray, combine: np.ufunc, size: int) -> xr.DataArray:
    starts = np.arange(0, values.sizes["channel"], size)
    found: xr.DataArray = over(
        lambda rows: combine.reduceat(rows, starts, axis=-1),
        values,
        core=(("channel",),),
        out=(("channel_group",),),
        sizes={"channel_group": len(starts)},
    )
    return found


def _ordered(values: xr.DataArray, order: Sequence[int] | None) -> xr.DataArray:
    if order is None:
        return values
    batches = values.sizes["batch"]
    if sorted(order) != list(range(batches)):
        what = f"an order names each of the positions 0 to {batches - 1} once"
        raise TaqError(problem(what, found=",".join(map(str, order))))
    return values.isel(batch=list(order))


def _ema(values: Array, *, axes: int, keep: float) -> Array:
    calls = values.reshape(*values.shape[: values.ndim - axes], -1)
    return ema_float32(np.moveaxis(calls, -1, 0), 1.0 - keep).astype(np.float64)

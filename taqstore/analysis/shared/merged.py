"""Statistics with their batches merged: moments of channels, and histograms with bounds of bins."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, require, singly, steps_first
from taqstore.names import BINS, MOMENTS


def moments(dataset: xr.Dataset, *, analysis: str) -> xr.Dataset:
    """`mean` and `std` (step, layer, channel) float64, population standard deviation; lazy.

    Batches are merged as in Chan, Golub & LeVeque (1979): the pooled sum of squared deviations is
    the sum of the batches' own plus ``count * (batch mean - pooled mean)**2``.

    Raises
    ------
    MissingError
        There are no moments.
    """
    names = require(dataset, *MOMENTS, analysis=analysis)
    mean = dataset["mean"].astype(np.float64)
    if "std" in names:
        return xr.Dataset({"mean": mean, "std": dataset["std"].astype(np.float64)})
    if "batch" not in mean.dims:
        count, m2 = dataset["count"].astype(np.float64), dataset["m2"].astype(np.float64)
        return xr.Dataset({"mean": mean, "std": np.sqrt(m2 / count.where(count > 0))})
    dims = tuple(dim for dim in ("batch", "step") if dim in mean.dims)
    wide = (*dims, "channel")
    pooled, std = singly(
        merged_moments,
        *(dataset[name] for name in ("mean", "m2", "count")),
        core=(wide, wide, dims),
        out=(wide[1:],) * 2,
        dtypes=(np.float64,) * 2,
    )
    return xr.Dataset(steps_first({"mean": pooled, "std": std}))


def merged_moments(mean: Array, m2: Array, count: Array) -> tuple[Array, Array]:
    """Pooled mean and standard deviation ``(..., channel)``.

    Of batches ``(batch, ..., channel)`` with counts ``(batch, ...)``, float64.
    """
    weight = count.astype(np.float64)[..., None]
    seen, total = weight > 0, np.nansum(weight, axis=0)
    known = np.where(total > 0, total, np.nan)
    values = mean.astype(np.float64)
    pooled = np.where(seen, values * weight, 0.0).sum(axis=0) / known
    apart = m2.astype(np.float64) + weight * (values - pooled) ** 2
    with np.errstate(invalid="ignore"):
        return pooled, np.sqrt(np.where(seen, apart, 0.0).sum(axis=0) / known)


def tensor_moments(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """`tensor_mean` and `tensor_std` (step, layer), merged as `moments`; empty without moments.

    Every channel of a batch has the same count.
    """
    if {"tensor_mean", "tensor_std"} <= set(dataset.data_vars):
        return {name: dataset[name] for name in ("tensor_mean", "tensor_std")}
    if "mean" not in dataset.data_vars or not {"std", "m2"} & set(dataset.data_vars):
        return {}
    deviations = dataset["m2"] if "m2" in dataset.data_vars else dataset["std"]
    dims = tuple(dim for dim in ("batch", "step") if dim in dataset["mean"].dims)
    center, std = singly(
        _tensor_moments,
        dataset["mean"],
        deviations,
        dataset["count"],
        core=((*dims, "channel"), (*dims, "channel"), dims),
        out=(tuple(dim for dim in dims if dim != "batch"),) * 2,
        dtypes=(np.float64,) * 2,
        batches="batch" in dims,
        squared="m2" in dataset.data_vars,
    )
    return steps_first({"tensor_mean": center, "tensor_std": std})


def _tensor_moments(
    mean: Array, deviations: Array, count: Array, *, batches: bool, squared: bool
) -> tuple[Array, Array]:
    """Mean and standard deviation of ``([batch, ]..., channel)``: of channels, then of batches."""
    values, weight = mean.astype(np.float64), count.astype(np.float64)
    apart = deviations.astype(np.float64)
    apart = apart if squared else apart**2 * weight[..., None]
    weight = np.where(weight > 0, weight, np.nan)

    def summed(array: Array) -> Array:
        array = array.sum(axis=-1)
        return np.asarray(array.sum(axis=0)) if batches else array

    wide = weight[..., None]
    total = summed(np.broadcast_to(wide, values.shape))
    center = summed(values * wide) / total
    spread = summed(apart + wide * (values - center[..., None]) ** 2)
    return center, (spread / total) ** 0.5


def bounded_bins(dataset: xr.Dataset, *, analysis: str) -> xr.Dataset:
    """`counts` (step, layer, bin) with bin bounds `left` and `right`, (bin) or per step and layer.

    Float-bit-prefix bins have their bounds as coordinates, fixed bins share one row of edges, and
    sampled histograms (`hist_counts`) have edges of their own for every step and layer. Lazy.

    Raises
    ------
    MissingError
        There is no histogram.
    """
    names = require(dataset, *BINS, analysis=analysis)
    counts = dataset[names[0]]
    if "batch" in counts.dims:
        counts = counts.sum("batch")
    if len(names) == 3:
        left, right = dataset["bin_left"], dataset["bin_right"]
    else:
        edges = dataset[names[1]].astype(np.float64)
        left = edges.isel(edge=slice(None, -1)).rename(edge="bin").drop_vars("bin", errors="ignore")
        right = edges.isel(edge=slice(1, None)).rename(edge="bin").drop_vars("bin", errors="ignore")
    bounds = {"left": left.astype(np.float64), "right": right.astype(np.float64)}
    return xr.Dataset({"counts": counts, **bounds}).reset_coords(
        ["bin_left", "bin_right"] if len(names) == 3 else [], drop=True
    )

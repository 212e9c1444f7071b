"""Statistics with their batches merged: moments of channels, and histograms with bounds of bins."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import require
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
    count, m2 = dataset["count"].astype(np.float64), dataset["m2"].astype(np.float64)
    if "batch" in mean.dims:
        seen, weight = count > 0, count
        count = weight.sum("batch")
        pooled = (mean * weight).where(seen, 0.0).sum("batch", skipna=False)
        pooled = pooled / count.where(count > 0)
        m2 = (m2 + weight * (mean - pooled) ** 2).where(seen, 0.0).sum("batch", skipna=False)
        mean = pooled
    return xr.Dataset({"mean": mean, "std": np.sqrt(m2 / count.where(count > 0))})


def tensor_moments(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """`tensor_mean` and `tensor_std` (step, layer), merged as `moments`; empty without moments.

    Every channel of a batch has the same count.
    """
    if {"tensor_mean", "tensor_std"} <= set(dataset.data_vars):
        return {name: dataset[name] for name in ("tensor_mean", "tensor_std")}
    if "mean" not in dataset.data_vars or not {"std", "m2"} & set(dataset.data_vars):
        return {}
    mean = dataset["mean"].astype(np.float64)
    count = dataset["count"].astype(np.float64)
    if "m2" in dataset.data_vars:
        deviations = dataset["m2"].astype(np.float64)
    else:
        deviations = dataset["std"].astype(np.float64) ** 2 * count
    dims = [d for d in ("batch", "channel") if d in mean.dims]
    weight = count.where(count > 0)
    total = (weight * xr.ones_like(mean)).sum(dims, skipna=False)
    center = (mean * weight).sum(dims, skipna=False) / total
    spread = (deviations + weight * (mean - center) ** 2).sum(dims, skipna=False)
    return {"tensor_mean": center, "tensor_std": (spread / total) ** 0.5}


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

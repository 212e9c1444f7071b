"""Percentiles from stored histograms, by the rule that fits the kind of histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, Bounds, histogram_bins, observed_histogram, over
from taqstore.statistics.histogram import Layout, absolute_quantile, quantile

_STORED = {99.9: "hist_p999", 99.0: "hist_p99", 1.0: "hist_p01", 0.1: "hist_p001"}
_FLOOR = 1e-12


def absolute_percentile(dataset: xr.Dataset, percentile: float, *, analysis: str) -> xr.DataArray:
    """Symmetric clip bound at a percentile, per (step, layer[, projection]).

    Of ``|x|`` from the bit histograms of observations. Pooled sources follow their own script: the
    *signed* upper percentile of their histogram, `hist_p999` where that is what is asked.
    """
    observed = observed_histogram(dataset)
    if observed is None:
        return signed_percentile(dataset, percentile, analysis=analysis)
    return _from_bits(absolute_quantile, observed, percentile)


def percentile_bounds(dataset: xr.Dataset, percentile: float, *, analysis: str) -> Bounds:
    """Both tails, signed: percentiles ``100 - percentile`` and ``percentile``."""
    # 100 - 99.9 is not 0.1 in floating point, but is the percentile a source stored as 0.1.
    low = round(100.0 - percentile, 10)
    return Bounds(
        signed_percentile(dataset, low, analysis=analysis),
        signed_percentile(dataset, percentile, analysis=analysis),
    )


def signed_percentile(dataset: xr.Dataset, percentile: float, *, analysis: str) -> xr.DataArray:
    """Percentile of the signed values; NaN where nothing was counted."""
    observed = observed_histogram(dataset)
    if observed is not None:
        return _from_bits(quantile, observed, percentile)
    stored = _STORED.get(percentile)
    if stored in dataset.data_vars:
        return dataset[stored].astype(np.float64)
    bins = histogram_bins(dataset, analysis=analysis)
    found: xr.DataArray = over(
        interpolated_percentile, *bins, core=(("bin",), ("edge",)), percentile=percentile
    )
    return found


def _from_bits(rule: Any, observed: tuple[xr.DataArray, Layout], percentile: float) -> xr.DataArray:
    counts, layout = observed
    found: xr.DataArray = over(rule, counts, core=(("bin",),), layout=layout, q=percentile / 100)
    return found


def interpolated_percentile(counts: Array, edges: Array, *, percentile: float) -> Array:
    """Percentile of histograms, linear inside a bin, as the source collector computes it.

    ``i`` is the first bin whose cumulated share reaches ``percentile / 100`` and the result lies
    ``(p/100 - cdf[i-1]) / (cdf[i] - cdf[i-1] + 1e-12)`` of the way through it, at its left edge if
    ``i`` is 0.

    Parameters
    ----------
    counts, edges
        ``(..., bin)`` and ``(..., bin + 1)``.
    percentile
        0 to 100.

    Returns
    -------
    float64 ``(...)``; NaN where the histogram is empty.
    """
    fraction = percentile / 100
    total = counts.sum(axis=-1, keepdims=True)
    cdf = np.divide(
        np.cumsum(counts, axis=-1), total, out=np.full(counts.shape, np.nan), where=total > 0
    )
    index = np.minimum((cdf < fraction).sum(axis=-1), counts.shape[-1] - 1)[..., None]
    here = np.take_along_axis(cdf, index, axis=-1)
    before = np.take_along_axis(cdf, np.maximum(index - 1, 0), axis=-1)
    within = np.where(index == 0, 0.0, (fraction - before) / (here - before + _FLOOR))
    edges = np.broadcast_to(edges, (*counts.shape[:-1], edges.shape[-1]))
    left = np.take_along_axis(edges, index, axis=-1)
    right = np.take_along_axis(edges, index + 1, axis=-1)
    result: Array = (left + within * (right - left))[..., 0]
    return np.where(total[..., 0] > 0, result, np.nan)

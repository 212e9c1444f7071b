"""Percentiles from stored histograms, by the rule that fits the kind of histogram.

A histogram knows a value to within its bin, extrema know the outermost one exactly. Where a group
has the extrema of what it counted, no percentile lies beyond them, and the last one is the
extremum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import (
    Array,
    Bounds,
    first_complete,
    histogram_bins,
    joined,
    observed_histogram,
    over,
)
from taqstore.statistics.histogram import Layout, absolute_quantile, quantile

_STORED = {99.9: "hist_p999", 99.0: "hist_p99", 1.0: "hist_p01", 0.1: "hist_p001"}
_FLOOR = 1e-12
COUNTED = ("counted_min", "counted_max")
"""Extrema of what a histogram counted, whose batches are merged already: see `analysis.held`."""


def absolute_percentile(dataset: xr.Dataset, percentile: float, *, analysis: str) -> xr.DataArray:
    """Symmetric clip bound at a percentile, per (step, layer[, projection]).

    Of ``|x|`` from the bit histograms of observations. Pooled sources follow their own script: the
    *signed* upper percentile of their histogram, `hist_p999` where that is what is asked.
    """
    observed = observed_histogram(dataset)
    if observed is None:
        return signed_percentile(dataset, percentile, analysis=analysis)
    counts, layout = observed
    ends: Sequence[xr.DataArray] = stored_extrema(dataset)
    if any("channel" in end.dims for end in ends):  # not in one block: there are many
        ends = true_extrema(dataset) or ()
    calls = [("batch",) if "batch" in end.dims else () for end in ends]
    ends = [joined(end, dims) for end, dims in zip(ends, calls, strict=True)]
    found: xr.DataArray = over(
        absolute_of_counts,
        counts,
        *ends,
        core=(("bin",), *calls),
        layout=layout,
        percentile=percentile,
        axes=len(calls[0]) if calls else 0,
    )
    return found


def absolute_of_counts(
    counts: Array, *ends: Array, layout: Layout, percentile: float, axes: int
) -> Array:
    """As `within_absmax`, in one pass; `ends` are extrema, of batches if `axes`, or nothing."""
    found = absolute_quantile(counts, layout, percentile / 100)
    if not ends:
        return found
    outer = [
        keep.reduce(end.astype(np.float64), axis=tuple(range(-axes, 0)))
        for keep, end in zip((np.fmin, np.fmax), ends, strict=True)
    ]
    absmax = np.maximum(*np.abs(outer))
    kept = np.fmin(np.fmax(found, 0.0 if percentile < 100.0 else absmax), absmax)
    return np.where(np.isnan(found), np.nan, kept)


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
    stored = _STORED.get(percentile)
    if observed is not None:
        found = _from_bits(quantile, observed, percentile)
    elif stored in dataset.data_vars:
        return dataset[stored].astype(np.float64)
    else:
        bins = histogram_bins(dataset, analysis=analysis)
        found = over(
            interpolated_percentile, *bins, core=(("bin",), ("edge",)), percentile=percentile
        )
    return within(found, true_extrema(dataset), percentile)


def true_extrema(dataset: xr.Dataset, *, per_call: bool = False) -> Bounds | None:
    """Extrema of the finite values of every tensor; None of a source that has averages of them.

    Parameters
    ----------
    per_call
        Of every batch by itself.
    """
    stored = stored_extrema(dataset)
    if not stored:
        return None
    low, high = (end.astype(np.float64) for end in stored)
    dims = [dim for dim in ("batch", "channel") if dim in low.dims]
    dims = [dim for dim in dims if not (per_call and dim == "batch")]
    # A batch never written, or a channel without a finite value, has none of the values counted.
    return Bounds(low.min(dims, skipna=True), high.max(dims, skipna=True))


def stored_extrema(dataset: xr.Dataset) -> list[xr.DataArray]:
    """The two variables that have extrema of what was counted; none where there are none."""
    names = first_complete(dataset, (COUNTED, ("tensor_min", "tensor_max"), ("min", "max")))
    return [] if "avg_min" in dataset.data_vars else [dataset[name] for name in names]


def within(found: xr.DataArray, ends: Bounds | None, percentile: float) -> xr.DataArray:
    """Percentiles kept inside the extrema, where they are known; 0 and 100 are these themselves."""
    if ends is None:
        return found
    lower = ends.lower if percentile < 100.0 else ends.upper
    upper = ends.upper if percentile > 0.0 else ends.lower
    kept = cast(xr.DataArray, np.fmin(np.fmax(found, lower), upper))
    return kept.where(found.notnull()).transpose(*found.dims)


def within_absmax(found: xr.DataArray, ends: Bounds | None, percentile: float) -> xr.DataArray:
    """The same of percentiles of ``|x|``."""
    if ends is None:
        return found
    return within(found, Bounds(xr.zeros_like(ends.absmax), ends.absmax), percentile)


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

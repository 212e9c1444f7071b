"""Sets of outlier channels: spikes, tails, and how far the set stays the same."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, over

DEAD_MEDIAN = 1e-6
"""Below this median range a layer is taken as dead and has no outliers."""
SPIKE_RATIO = 5.0
_TAIL = 0.99


def set_measures(
    dataset: xr.Dataset, width: xr.DataArray, *, threshold: float, spike: float
) -> dict[str, xr.DataArray]:
    """Tails, spikes and stability from channel ranges ``width`` (step, layer, channel).

    The outlier set is that of the median rule (range above `threshold` times the median) at every
    step, and for batches of every batch on its own; `outliers` documents the results.
    """
    tail, is_spike = over(
        tails,
        width,
        core=(("channel",),),
        out=((), ("channel",)),
        dtypes=(np.float64, bool),
        spike=spike,
    )
    found = {
        "tail_ratio": tail,
        "is_spike": is_spike,
        "spike_count": is_spike.sum("channel"),
        "outlier_count": over(
            _count_above, width, core=(("channel",),), dtypes=(np.int64,), threshold=threshold
        ),
        "step_jaccard": _stability(width, "step", threshold),
    }
    if {"min", "max"} <= set(dataset.data_vars) and "batch" in dataset["min"].dims:
        low, high = (dataset[name].astype(np.float64) for name in ("min", "max"))
        found["batch_jaccard"] = _stability(high - low, "batch", threshold)
    return found


def _stability(width: xr.DataArray, dim: str, threshold: float) -> xr.DataArray:
    stability: xr.DataArray = over(
        _range_jaccard, width, core=((dim, "channel"),), threshold=threshold
    )
    return stability


def _range_jaccard(width: Array, *, threshold: float) -> Array:
    known = np.asarray(~np.isnan(width).any(axis=-1))
    return mean_jaccard(above_median(width, threshold=threshold), known)


def above_median(width: Array, *, threshold: float) -> Array:
    """Mask of channels with range above `threshold` times the median of rows ``(..., channel)``."""
    median = np.median(width, axis=-1, keepdims=True)
    mask: Array = (width > threshold * median) & (median >= DEAD_MEDIAN)
    return mask


def _count_above(width: Array, *, threshold: float) -> Array:
    return np.asarray(above_median(width, threshold=threshold).sum(axis=-1))


def tails(width: Array, *, spike: float) -> tuple[Array, Array]:
    """99th percentile over median of rows ``(..., channel)``, and channels beyond `spike` times it.

    The ratio is 0 for a dead row, which has no spikes.
    """
    middle, high = np.quantile(width, (0.5, _TAIL), axis=-1)
    alive = middle >= DEAD_MEDIAN
    known = np.where(np.isnan(middle), np.nan, 0.0)
    ratio = np.divide(high, middle, out=known, where=alive)
    return ratio, (width > spike * high[..., None]) & alive[..., None]


def mean_jaccard(sets: Array, known: Array) -> Array:
    """Mean over pairs of ``|A & B| / |A | B|`` of masks ``(..., member, channel)``.

    Two empty sets are equal: 1. Members that are not `known` ``(..., member)`` form no pairs. NaN
    where all sets are empty, or there is no pair.
    """
    masks = (sets & known[..., None]).astype(np.float64)
    both = masks @ np.swapaxes(masks, -1, -2)
    size = masks.sum(axis=-1)
    either = size[..., :, None] + size[..., None, :] - both
    similar = np.divide(both, either, out=np.ones(both.shape), where=either > 0)
    pair = known[..., :, None] & known[..., None, :] & ~np.eye(sets.shape[-2], dtype=bool)
    pairs = pair.sum(axis=(-2, -1))
    mean = np.full(pairs.shape, np.nan)
    some = (pairs > 0) & size.any(axis=-1)
    np.divide((similar * pair).sum(axis=(-2, -1)), pairs, out=mean, where=some)
    return mean

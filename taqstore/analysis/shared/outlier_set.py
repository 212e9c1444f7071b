"""Sets of outlier channels: spikes, tails, and how far the set stays the same."""

from __future__ import annotations

import numpy as np

from taqstore.analysis.shared.inputs import Array
from taqstore.statistics.selected import median

DEAD_MEDIAN = 1e-6
"""Below this median range a layer is taken as dead and has no outliers."""
SPIKE_RATIO = 5.0
_TAIL = 0.99


def set_measures(
    low: Array, high: Array, width: Array, *, threshold: float, spike: float
) -> tuple[Array, ...]:
    """Tails, spikes and stability from channel ranges ``width`` (step, channel) of one layer.

    The outlier set is that of the median rule (range above `threshold` times the median) at every
    step, and for batches of every batch on its own; `outliers` documents the results.

    Returns
    -------
    `tail_ratio`, `is_spike`, `spike_count`, `outlier_count`, `step_jaccard`, and where `low` and
    `high` are of batches, (batch, step, channel), `batch_jaccard`.
    """
    tail, is_spike = tails(width, spike=spike)
    above = above_median(width, threshold=threshold)
    stable = mean_jaccard(above, np.asarray(~np.isnan(width).any(axis=-1)))
    found = (tail, is_spike, is_spike.sum(axis=-1), above.sum(axis=-1), stable)
    if low.ndim < 3:
        return found
    ranges = np.moveaxis(high.astype(np.float64) - low.astype(np.float64), 0, 1)
    return (*found, _range_jaccard(ranges, threshold=threshold))


def _range_jaccard(width: Array, *, threshold: float) -> Array:
    known = np.asarray(~np.isnan(width).any(axis=-1))
    return mean_jaccard(above_median(width, threshold=threshold), known)


def above_median(width: Array, *, threshold: float) -> Array:
    """Mask of channels with range above `threshold` times the median of rows ``(..., channel)``."""
    middle = median(width)[..., None]
    mask: Array = (width > threshold * middle) & (middle >= DEAD_MEDIAN)
    return mask


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
    members = sets & known[..., None]
    # Of thousands of channels few are in any set.
    some = members.any(axis=tuple(range(members.ndim - 1)))
    masks = members[..., some]
    mean = np.full(known.shape[:-1], np.nan)
    # Pairs are as many as members squared: those of one place are there at a time.
    for place in np.ndindex(mean.shape):
        mean[place] = _jaccard_of(masks[place].astype(np.float64), known[place])
    return mean


def _jaccard_of(masks: Array, known: Array) -> float:
    """`mean_jaccard` of one place: ``(member, channel)`` of 0 and 1, and ``(member,)``."""
    pairs = int(known.sum()) * (int(known.sum()) - 1)
    size = masks.sum(axis=-1)
    if not pairs or not size.any():
        return np.nan
    similar = masks @ masks.T
    either = size[:, None] + size[None, :]
    either -= similar
    np.divide(similar, either, out=similar, where=either > 0)
    similar[either == 0] = 1.0
    del either
    similar[~known], similar[:, ~known] = 0.0, 0.0
    np.fill_diagonal(similar, 0.0)
    return float(similar.sum() / pairs)

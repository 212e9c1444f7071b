"""Partitions of a sequence into contiguous groups: the best ones, and two common heuristics.

A cost is an array ``(..., first, last)`` for groups of positions first to last, both included;
entries with first > last are ignored. A partition is an array ``(..., position)`` of group numbers
from 0; partitions into 1 to n groups are stacked on an axis before the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.statistics.bins import Floats

Ints = npt.NDArray[np.int64]

TIE = 1e-12
"""Costs that differ by less, as shares of them, are equal: they are sums of rounded terms."""


def optimal(cost: Floats) -> tuple[Floats, Ints]:
    """Least total cost of contiguous groups, for every number of groups, by dynamic programming.

    ``best[k, last] = min over first of best[k - 1, first - 1] + cost[first, last]`` (Bellman 1961;
    Fisher 1958): exact, in n^3 additions. Of totals that are equal but for rounding (`TIE`) the one
    is followed whose last group begins first: groups whose best ranges are one and the same may be
    cut anywhere.

    Returns
    -------
    total
        float64 ``(..., n)`` for 1 to n groups; NaN where a cost is NaN.
    partition
        int64 ``(..., n, position)``.
    """
    n = cost.shape[-1]
    known = np.where(np.tri(n, dtype=bool).T, cost, np.inf)
    best = known[..., 0, :]
    totals, starts = [best[..., -1]], [np.zeros(best.shape, np.int64)]
    for _ in range(1, n):
        before = np.concatenate([np.full((*best.shape[:-1], 1), np.inf), best[..., :-1]], axis=-1)
        extended = before[..., :, None] + known
        best = extended.min(axis=-2)
        # Costs are not negative; where all are infinite the first is as good as any.
        starts.append((extended <= (best * (1 + TIE))[..., None, :]).argmax(axis=-2))
        totals.append(best[..., -1])
    cuts = [_followed(starts, groups) for groups in range(1, n + 1)]
    unknown = np.asarray(np.isnan(np.where(np.tri(n, dtype=bool).T, cost, 0.0)).any(axis=(-2, -1)))
    return np.where(unknown[..., None], np.nan, np.stack(totals, axis=-1)), np.stack(cuts, axis=-2)


def _followed(starts: list[Ints], groups: int) -> Ints:
    """Group of every position, from where the last group starts back to the first."""
    n = starts[0].shape[-1]
    last = np.full((*starts[0].shape[:-1], 1), n - 1)
    group = np.full(starts[0].shape, groups - 1)
    for k in range(groups - 1, 0, -1):
        first = np.take_along_axis(starts[k], last, axis=-1)
        group -= np.arange(n) < first
        last = np.maximum(first - 1, 0)
    return group


def clustered(features: Floats) -> Ints:
    """Agglomerative clustering in which only neighbours merge, by Ward's criterion.

    Every step merges the two adjacent groups whose union adds least to the sum of squared
    deviations, ``n_a n_b / (n_a + n_b) |mean_a - mean_b|^2`` (Ward 1963; Grimm 1987, CONISS).

    Parameters
    ----------
    features
        ``(..., position, feature)``.

    Returns
    -------
    int64 ``(..., n, position)``: partitions into 1 to n groups.
    """
    *lead, n, width = features.shape
    mean = features.reshape(-1, n, width).astype(np.float64)
    rows = np.arange(len(mean))
    size = np.ones(mean.shape[:2])
    begins = np.ones((len(mean), n), bool)
    place = np.tile(np.arange(n), (len(mean), 1))
    stack = [begins.copy()]
    for groups in range(n, 1, -1):
        weight = size[:, 1:] * size[:, :-1] / (size[:, 1:] + size[:, :-1])
        gain = weight * np.square(np.diff(mean, axis=1)).sum(axis=-1)
        left = np.where(np.isnan(gain), np.inf, gain).argmin(axis=1)
        right = left + 1
        begins[rows, place[rows, right]] = False
        stack.append(begins.copy())
        both = size[rows, left] + size[rows, right]
        share = (size[rows, right] / both)[:, None]
        mean[rows, left] += share * (mean[rows, right] - mean[rows, left])
        size[rows, left] = both
        kept = np.arange(groups) != right[:, None]
        mean, size, place = (_kept(values, kept) for values in (mean, size, place))
    partition = np.cumsum(np.stack(stack[::-1], axis=1), axis=-1) - 1
    return partition.reshape(*lead, n, n)


def _kept(values: npt.NDArray[Any], kept: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    return values[kept].reshape(len(values), -1, *values.shape[2:])


def bucketed(values: npt.ArrayLike, edges: npt.ArrayLike) -> Ints:
    """Groups of positions between which a falling or rising value passes one of `edges`.

    A value on an edge belongs to the bucket above it.
    """
    bucket = np.searchsorted(np.sort(np.asarray(edges, np.float64)), values, side="right")
    return np.cumsum(np.diff(bucket, prepend=bucket[..., :1], axis=-1) != 0, axis=-1)


def total_cost(cost: Floats, partition: Ints) -> Floats:
    """Summed cost of the groups of partitions ``(..., position)`` or ``(..., k, position)``.

    Returns
    -------
    float64, of the shape of `partition` without its last axis.
    """
    begins = np.diff(partition, prepend=-1, axis=-1) != 0
    n = partition.shape[-1]
    # Where each position's group ends: the next begin, less one.
    after = np.where(begins, np.arange(n), n)
    following = np.minimum.accumulate(after[..., ::-1], axis=-1)[..., ::-1]
    ends = np.concatenate([following[..., 1:], np.full((*after.shape[:-1], 1), n)], axis=-1) - 1
    extra = partition.ndim - (cost.ndim - 1)
    wide = cost.reshape(*cost.shape[:-2], *(1,) * extra, -1)
    index = np.arange(n) * n + ends
    shape = np.broadcast_shapes(wide.shape[:-1], index.shape[:-1])
    wide, index = (np.broadcast_to(v, (*shape, v.shape[-1])) for v in (wide, index))
    picked = np.take_along_axis(wide, index, axis=-1)
    # Rows of their own, so that sums are rounded alike however the array came.
    total: Floats = np.ascontiguousarray(np.where(begins, picked, 0.0)).sum(axis=-1)
    return total

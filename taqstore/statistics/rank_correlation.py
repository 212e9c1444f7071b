"""Spearman's rank correlation, of many pairs of rows at once, and its bootstrap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
_HELD_VALUES = 1 << 21


class RankCorrelation(NamedTuple):
    """A correlation, and the ends of its interval."""

    rho: float
    lower: float
    upper: float


def average_ranks(values: ArrayLike) -> Float64:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks.

    >>> average_ranks([10, 30, 20, 20]).tolist()
    [1.0, 4.0, 2.5, 2.5]
    """
    told = np.asarray(values, np.float64)
    count = told.shape[-1]
    order = np.argsort(told, axis=-1, kind="stable")
    ascending = np.take_along_axis(told, order, axis=-1)
    begins = np.ones(told.shape, bool)
    begins[..., 1:] = ascending[..., 1:] != ascending[..., :-1]
    ends = np.ones(told.shape, bool)
    ends[..., :-1] = begins[..., 1:]
    place = np.arange(count)
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, place, count - 1)[..., ::-1], axis=-1)[..., ::-1]
    found = np.empty(told.shape)
    np.put_along_axis(found, order, (first + last) / 2 + 1, axis=-1)
    return found


def spearman(a: ArrayLike, b: ArrayLike) -> Float64:
    """Spearman's rho along the last axis: Pearson's correlation of average ranks.

    Returns
    -------
    float64 over the other axes; NaN where one of both does not vary.
    """
    left, right = (ranks - ranks.mean(-1, keepdims=True) for ranks in map(average_ranks, (a, b)))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (left * right).sum(-1) / np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    return np.asarray(np.clip(found, -1, 1))


def rank_correlation(
    a: ArrayLike, b: ArrayLike, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> RankCorrelation:
    """Spearman's rho of pairs ``(n,)``, with a percentile interval over draws of the pairs.

    Pairs are drawn anew, as many as there are and with replacement; draws in which one of both
    does not vary are left out.

    Returns
    -------
    NaN throughout for fewer than 3 pairs.
    """
    pairs = np.stack([np.asarray(values, np.float64) for values in (a, b)])
    count = pairs.shape[1]
    if count < 3:
        return RankCorrelation(*[float("nan")] * 3)
    rng, found = np.random.default_rng(seed), []
    run = max(1, _HELD_VALUES // count)
    for start in range(0, draws, run):
        drawn = rng.integers(count, size=(min(run, draws - start), count))
        found.append(spearman(pairs[0][drawn], pairs[1][drawn]))
    known = np.concatenate(found)
    known = known[~np.isnan(known)]
    rho, tail = float(spearman(*pairs)), (1 - level) / 2
    if not len(known):
        return RankCorrelation(rho, float("nan"), float("nan"))
    lower, upper = np.quantile(known, [tail, 1 - tail])
    return RankCorrelation(rho, float(lower), float(upper))

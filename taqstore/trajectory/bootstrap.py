"""The bootstrap: how far a mean over seeds could be off, from the seeds themselves.

Efron and Tibshirani (1993), chapter 13: seeds are drawn anew, as many as there are and with
replacement; the interval is what the middle of the means of many such draws spans (percentiles).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

DRAWS = 10_000
LEVEL = 0.95
_HELD_VALUES = 1 << 22


class Interval(NamedTuple):
    """A mean and the ends of its interval: float64 scalars, or ``(k,)`` of so many columns."""

    mean: Float64
    lower: Float64
    upper: Float64

    @property
    def excludes_zero(self) -> NDArray[np.bool_]:
        """Whether 0 is outside; False where an end is NaN."""
        return np.asarray((self.lower > 0) | (self.upper < 0))


def bootstrap(
    values: ArrayLike, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Percentile interval of the mean over seeds.

    Parameters
    ----------
    values
        ``(seed,)`` or ``(seed, k)``; all columns see the same draws of seeds, so they are paired.
    draws, level, seed
        How often seeds are drawn, the share of the means that the interval holds, and the seed of
        the draws.

    Returns
    -------
    Mean, lower and upper end; NaN of a column with a NaN, and throughout without a seed.
    """
    told = np.asarray(values, np.float64)
    if not len(told):
        nothing = np.full(told.shape[1:], np.nan)
        return Interval(nothing, nothing, nothing)
    table = told.reshape(len(told), -1)
    means = np.sort(_means(table, draws, seed), axis=0)  # NaN last, so NaN spreads by itself
    means[:, np.isnan(table).any(axis=0)] = np.nan
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        found = (table.mean(axis=0), _quantile(means, tail), _quantile(means, 1 - tail))
    mean, lower, upper = (one.reshape(told.shape[1:]) for one in found)
    return Interval(mean, lower, upper)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Interval:
    """`bootstrap` of ``a - b``, seed by seed: the two were measured on the same seeds.

    Two that are infinite at a seed do not differ there.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where(left == right, 0.0, left - right)
    return bootstrap(difference, draws=draws, level=level, seed=seed)


def _means(table: Float64, draws: int, seed: int) -> Float64:
    """Means (draw, k) of seeds drawn anew, a run of draws at a time."""
    rng, count = np.random.default_rng(seed), len(table)
    run = max(1, _HELD_VALUES // table.size)
    found = np.empty((draws, table.shape[1]))
    with np.errstate(invalid="ignore"):
        for start in range(0, draws, run):
            drawn = rng.integers(count, size=(min(run, draws - start), count))
            found[start : start + run] = table[drawn].mean(axis=1)
    return found


def _quantile(ascending: Float64, share: float) -> Float64:
    """Linear between order statistics, as `np.quantile`; between two that are infinite: so."""
    place = share * (len(ascending) - 1)
    low = int(np.floor(place))
    a, b = ascending[low], ascending[min(low + 1, len(ascending) - 1)]
    return np.asarray(np.where(a == b, a, a + (b - a) * (place - low)))

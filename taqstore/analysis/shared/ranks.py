"""Rank correlation of rows."""

from __future__ import annotations

import numpy as np

from taqstore.analysis.shared.inputs import Array
from taqstore.statistics.rank_correlation import average_ranks


def spearman(first: Array, second: Array) -> Array:
    """Spearman's rank correlation of rows ``(..., channel)``: ties share their mean rank.

    0 where one side has a single value throughout, NaN where a row holds NaN.
    """
    x, y = (_centered_ranks(values) for values in np.broadcast_arrays(first, second))
    xy, xx, yy = ((a * b).sum(axis=-1) for a, b in ((x, y), (x, x), (y, y)))
    some = (xx > 0) & (yy > 0)
    rho = np.divide(xy, np.sqrt(xx * yy), out=np.zeros(xy.shape), where=some)
    return np.where(np.isnan(first).any(axis=-1) | np.isnan(second).any(axis=-1), np.nan, rho)


def _centered_ranks(values: Array) -> Array:
    return np.asarray(average_ranks(values) - (values.shape[-1] + 1) / 2)

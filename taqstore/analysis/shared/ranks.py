"""Rank correlation of rows."""

from __future__ import annotations

import numpy as np

from taqstore.analysis.shared.inputs import Array


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
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    count = values.shape[-1]
    place = np.broadcast_to(np.arange(count, dtype=np.float64), values.shape)
    starts = np.concatenate(
        [np.ones((*values.shape[:-1], 1), bool), ordered[..., 1:] != ordered[..., :-1]], axis=-1
    )
    ends = np.concatenate([starts[..., 1:], np.ones((*values.shape[:-1], 1), bool)], axis=-1)
    first = np.maximum.accumulate(np.where(starts, place, 0.0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, place, count)[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=-1)
    return np.asarray(ranks - (count - 1) / 2)

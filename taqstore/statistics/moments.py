"""Extrema and moments per channel of rows of values, and how they merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.statistics.bins import Counts, Floats

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Moments:
    """Extrema and moments per channel, over finite values; NaN where a channel has none.

    Parameters
    ----------
    finite
        int64 ``(channel,)``: finite values seen.
    min, max
        ``(channel,)``, exact, in the dtype of the tensor.
    mean, m2
        float64 ``(channel,)``: mean, and sum of squared deviations from it.
    """

    finite: Counts
    min: Array
    max: Array
    mean: Floats
    m2: Floats

    @property
    def std(self) -> Floats:
        """Population standard deviation, float64 ``(channel,)``."""
        spread: Floats = np.sqrt(self.m2 / np.maximum(self.finite, 1))
        return spread


# Any arithmetic on a signalling NaN warns; it is counted and left out like any other.
@np.errstate(invalid="ignore")
def moments_of(block: Array) -> Moments:
    """Moments of the rows of ``(row, channel)``, over what is finite."""
    ok = np.isfinite(block)
    if ok.all() and len(block):
        return finite_moments(block)
    values = block.astype(np.float64)
    finite = ok.sum(axis=0, dtype=np.int64)
    low = values.min(axis=0, initial=np.inf, where=ok)
    high = values.max(axis=0, initial=-np.inf, where=ok)
    mean = values.sum(axis=0, where=ok) / np.maximum(finite, 1)
    np.subtract(values, mean, out=values)
    m2 = np.square(values, out=values).sum(axis=0, where=ok)
    native = block.dtype.newbyteorder("=")
    return _without_empty(Moments(finite, low.astype(native), high.astype(native), mean, m2))


def finite_moments(block: Array) -> Moments:
    """Moments of the rows, at least one, of finite ``(..., row, channel)``."""
    values = block.astype(np.float64)
    native = block.dtype.newbyteorder("=")
    low, high = values.min(axis=-2).astype(native), values.max(axis=-2).astype(native)
    mean = values.mean(axis=-2)
    values -= mean[..., None, :]
    m2 = np.square(values, out=values).sum(axis=-2)
    return Moments(np.full(mean.shape, block.shape[-2], np.int64), low, high, mean, m2)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both, by Chan, Golub and LeVeque (1979)."""
    finite = a.finite + b.finite
    share = b.finite / np.maximum(finite, 1)
    # Channels without values have NaN moments, which must not spread.
    mean_a, mean_b, m2_a, m2_b = (np.nan_to_num(m) for m in (a.mean, b.mean, a.m2, b.m2))
    delta = mean_b - mean_a
    mean = mean_a + delta * share
    m2 = m2_a + m2_b + np.square(delta) * (a.finite * share)
    return _without_empty(Moments(finite, np.fmin(a.min, b.min), np.fmax(a.max, b.max), mean, m2))


def _without_empty(moments: Moments) -> Moments:
    """The same with NaN in channels that have no finite value."""
    some = moments.finite > 0
    if some.all():
        return moments
    kept = (np.where(some, m, np.nan) for m in (moments.mean, moments.m2))
    ends = (np.where(some, m, m.dtype.type(np.nan)) for m in (moments.min, moments.max))
    return Moments(moments.finite, *ends, *kept)

"""Quantization error and clip bounds worked out from a float-bit-prefix histogram.

Within a bin the values are taken as evenly spread, for which the squared error of a uniform
quantizer has a closed form: no sampling, any clip bound and bit width. Counts are ``(..., bin)``
and everything works over the leading axes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.bins import Counts, Floats, Layout
from taqstore.quantization import Quantizer, affine, symmetric

# Ratios of a clip bound tried in turn: from all of the range down to 2**-12 of it, then finer and
# finer around the best. Ripples of the error between neighbouring ratios stay far below 1 %.
_COARSE = 2.0 ** -np.arange(0.0, 12.0, 0.25)
_FINER = tuple(2.0 ** np.linspace(-span, span, 9) for span in (0.25, 0.0625))

_SHARES = np.linspace(0.0, 1.0, 17)  # of a range below zero: every zero point at 4 bits, nearly


def expected_error(counts: npt.ArrayLike, layout: Layout, quantizer: Quantizer) -> Floats:
    """Mean squared error of quantizing the counted values.

    With ``k`` the level of ``t`` and ``s`` the step size, ``k s^3 / 12 + (t - k s)^3 / 3`` is an
    antiderivative of the squared error, clipping included; its difference over a bin is exact for
    values spread evenly over the bin.

    Parameters
    ----------
    quantizer
        Its `step_size` broadcasts against the leading axes of `counts`.

    Returns
    -------
    float64 ``(...)``, in squared units of the values; NaN where nothing was counted.
    """
    array, edges = layout.checked(counts), layout.edges()
    # Bins that are empty in every row cost time and cannot change the result.
    used = np.flatnonzero(array.reshape(-1, layout.bins).any(axis=0))
    left, right = edges[used], edges[used + 1]
    error = _antiderivative(right, quantizer) - _antiderivative(left, quantizer)
    total = array.sum(axis=-1)
    summed = (array[..., used] * (error / (right - left))).sum(axis=-1)
    mean = np.full(summed.shape, np.nan)
    np.divide(summed, total, out=mean, where=total > 0)
    return mean


def _antiderivative(t: Floats, quantizer: Quantizer) -> Floats:
    step = np.asarray(quantizer.step_size, np.float64)[..., None]
    low, high = (level.astype(np.float64)[..., None] for level in quantizer.levels)
    level = np.divide(t, step, out=np.zeros(step.shape[:-1] + t.shape), where=step != 0)
    np.clip(np.rint(level, out=level), low, high, out=level)
    return level * step**3 / 12 + (t - level * step) ** 3 / 3


def search_alpha(
    counts: npt.ArrayLike, layout: Layout, *, bits: int = 8, narrow_range: bool = False
) -> Floats:
    """Clip bound alpha of least expected squared error for a symmetric quantizer.

    Returns
    -------
    float64 ``(...)``, at most the largest magnitude the occupied bins reach; NaN where nothing was
    counted.
    """
    array = layout.checked(counts)
    low, high = _occupied_range(array, layout)

    def cost(alpha: Floats) -> Floats:
        return expected_error(array, layout, symmetric(alpha, bits=bits, narrow_range=narrow_range))

    absmax = np.maximum(-low, high)
    alpha = _best(cost, absmax, _COARSE)
    for ratios in _FINER:
        alpha = np.minimum(_best(cost, alpha, ratios), absmax)
    return alpha


def search_range(counts: npt.ArrayLike, layout: Layout, *, bits: int = 8) -> tuple[Floats, Floats]:
    """Range (low, high) of least expected squared error for an affine quantizer.

    A grid over width and place of zero, then each end in turn, finer and finer. At few bits the
    error has many local minima, one per zero point: the grid is what finds the right one.

    Returns
    -------
    low, high
        float64 ``(...)`` each, ``low <= 0 <= high``; NaN where nothing was counted.
    """
    array = layout.checked(counts)
    low, high = _occupied_range(array, layout)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)

    def cost(lower: Floats, upper: Floats) -> Floats:
        return expected_error(array, layout, affine(lower, upper, bits=bits))

    def mirrored(upper: Floats, lower: Floats) -> Floats:
        return cost(lower, upper)

    least, most = low, high
    low, high = _grid(cost, least, most)
    for ratios in (*_FINER, *_FINER):
        high = np.minimum(_best(partial(cost, low), high, ratios), most)
        low = np.maximum(_best(partial(mirrored, high), low, ratios), least)
    return low, high


def _occupied_range(counts: Counts, layout: Layout) -> tuple[Floats, Floats]:
    """Outer bounds (low, high) of the bins that hold anything, each ``(...)``; NaN where none does.

    What the dtype can represent in the outermost bins: every counted value lies in [low, high].
    """
    held = counts > 0
    low, high = layout.representable()
    first, last = held.argmax(axis=-1), layout.bins - 1 - held[..., ::-1].argmax(axis=-1)
    occupied = held.any(axis=-1)
    return np.where(occupied, low[first], np.nan), np.where(occupied, high[last], np.nan)


def _grid(
    cost: Callable[[Floats, Floats], Floats], least: Floats, most: Floats
) -> tuple[Floats, Floats]:
    """Best of ranges of many widths, each with its zero at many places, within the extrema."""
    reach = 2.0 * np.maximum(-least, most)
    low, high, lowest = least, most, cost(least, most)
    for share in _SHARES:
        for ratio in _COARSE[::2]:
            lower = np.maximum(-share * ratio * reach, least)
            upper = np.minimum((1.0 - share) * ratio * reach, most)
            error = cost(lower, upper)
            better = error < lowest
            low, high = np.where(better, lower, low), np.where(better, upper, high)
            lowest = np.fmin(error, lowest)
    return low, high


def _best(cost: Callable[[Floats], Floats], start: Floats, ratios: npt.NDArray[Any]) -> Floats:
    """Of ``start * ratios``, the one of least cost, element by element."""
    best, least = start, cost(start)
    for ratio in ratios:
        candidate = start * ratio
        error = cost(candidate)
        best = np.where(error < least, candidate, best)
        least = np.fmin(error, least)
    return best

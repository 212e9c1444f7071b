"""How counted values lie inside their bins, and what a quantizer does to each bin.

A bin that stands for one value (a `float16` histogram of 10 mantissa bits) is that value; in any
other the values are taken as evenly spread. Either way the error of a uniform quantizer has a
closed form per bin, so an expected error is a sum of counts times errors of bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.quantization.quantizer import Quantizer
from taqstore.statistics.bins import Floats, Layout

# float64 elements per temporary: 1 MB stays in the cache through the dozen passes over it.
BLOCK = 1 << 17


@dataclass(frozen=True)
class Spread:
    """Where the values of each bin lie.

    Parameters
    ----------
    left, right
        Ends of the bins, ascending: ``(bin,)``, or ``(row, bin)`` where every histogram has edges
        of its own.
    points
        Bins are single values: `left` equals `right`. They may have any order, as may bins that a
        row has of its own.
    """

    left: Floats
    right: Floats
    points: bool = False

    @classmethod
    def of(cls, layout: Layout) -> Spread:
        """The bins of a float-bit-prefix histogram."""
        if layout.shift:
            return cls(layout.left, layout.right)
        low, high = layout.representable()
        return cls(low, high, points=True)

    def __getitem__(self, index: Any) -> Spread:
        """The bins (or, where rows have their own, rows and bins) at `index`."""
        return Spread(self.left[index], self.right[index], self.points)

    def square(self) -> Floats:
        """Mean of x^2 in every bin."""
        left, right = self.left, self.right
        mean: Floats = (left * left + left * right + right * right) / 3
        return mean

    def error(self, quantizer: Quantizer, *, power: float = 2.0) -> Floats:
        """Mean of ``|x - q(x)|**power`` in every bin, ``(..., bin)``.

        With ``k`` the level of ``t`` and ``s`` the step size, an antiderivative is
        ``2 k (s/2)^(p+1)/(p+1) + sign(r) |r|^(p+1)/(p+1)``, ``r = t - k s``, clipping included.

        Parameters
        ----------
        quantizer
            `step_size` of shape ``(...)``, which broadcasts against the rows of the bins.
        """
        if self.points:
            return _magnitude(_split(self.left, quantizer)[1], power)

        def antiderivative(t: Floats) -> Floats:
            level, rest = _split(t, quantizer)
            half = np.asarray(quantizer.step_size, np.float64)[..., None] / 2
            level *= 2 * half ** (power + 1)
            level += _signed(rest, power + 1)
            level /= power + 1
            return level

        return self._mean(antiderivative)

    def clip_loss(self, quantizer: Quantizer) -> Floats:
        """The part of the squared error beyond the outermost levels, ``(..., bin)``."""
        ends = [
            (np.asarray(level, np.float64) * quantizer.step_size)[..., None]
            for level in quantizer.levels
        ]

        def beyond(t: Floats) -> Floats:
            return np.minimum(t - ends[0], 0.0) + np.maximum(t - ends[1], 0.0)

        if self.points:
            return np.square(beyond(self.left))
        return self._mean(lambda t: _cubed(beyond(t)))

    def beyond(self, lower: Floats, upper: Floats) -> Floats:
        """Share of every bin below `lower` or above `upper`, ``(..., bin)``; NaN of NaN.

        Parameters
        ----------
        lower, upper
            Of shape ``(...)``, which broadcasts against the rows of the bins; `lower` is at most
            `upper`.
        """
        low, high = (np.asarray(end, np.float64)[..., None] for end in (lower, upper))
        if self.points:
            share = ((self.left < low) | (self.left > high)).astype(np.float64)
        else:
            width = self.right - self.left
            outside = np.clip(low - self.left, 0.0, width) + np.clip(self.right - high, 0.0, width)
            share = outside / width
        return np.where(np.isnan(low) | np.isnan(high), np.nan, share)

    def _mean(self, antiderivative: Callable[[Floats], Floats]) -> Floats:
        edges, place = self._edges()
        if edges is None:
            mean = antiderivative(self.right)
            mean -= antiderivative(self.left)
        else:
            at = antiderivative(edges)
            mean = at[..., 1:] - at[..., :-1]
            mean = mean if place is None else np.take(mean, place, axis=-1)
        mean /= self.right - self.left
        return mean

    def _edges(self) -> tuple[Floats | None, npt.NDArray[np.int64] | None]:
        """Ends of the bins, those shared by neighbours once, and the intervals that are bins.

        No edges where bins are of rows or stand apart; no intervals where each is a bin.
        """
        left, right = self.left, self.right
        if left.ndim > 1 or not left.size:
            return None, None
        apart = np.flatnonzero(left[1:] != right[:-1])
        if 2 * apart.size >= left.size:
            return None, None
        edges = np.append(left, right[-1])
        if not apart.size:
            return edges, None
        place = np.arange(left.size)
        place += np.searchsorted(apart, place)
        return np.insert(edges, apart + 1, right[apart]), place


def _cubed(beyond: Floats) -> Floats:
    """Antiderivative of the square of what lies beyond: a power is dear, and most is nothing."""
    found = np.zeros(beyond.shape)
    some = np.flatnonzero(beyond)
    found.reshape(-1)[some] = beyond.reshape(-1)[some] ** 3 / 3
    return found


def _split(t: Floats, quantizer: Quantizer) -> tuple[Floats, Floats]:
    """Level of each value in steps from 0.0, clipped, and what is left of the value."""
    step = np.asarray(quantizer.step_size, np.float64)[..., None]
    low, high = (np.asarray(end, np.float64)[..., None] for end in quantizer.levels)
    # A step of 0 makes nothing of any level.
    level = np.asarray(t / np.where(step == 0, 1.0, step))
    np.rint(level, out=level)
    np.maximum(level, low, out=level)
    np.minimum(level, high, out=level)
    return level, t - level * step


def _magnitude(rest: Floats, power: float) -> Floats:
    return np.square(rest) if power == 2 else np.abs(rest) ** power


def _signed(rest: Floats, power: float) -> Floats:
    if power == 3:
        return rest * rest * rest
    odd: Floats = np.copysign(np.abs(rest) ** power, rest)
    return odd


def row_slices(rows: int, width: int, *, block: int = BLOCK) -> list[slice]:
    """Slices over `rows` such that each has about `block` elements of `width` per row."""
    size = max(1, block // max(1, width))
    return [slice(start, start + size) for start in range(0, rows, size)]

"""Histograms as rows of counts, and single values known to be among the counted.

A histogram says which bin a value is in, the extrema of its tensor and channels say what some of
the values are. Where ranges are chosen by a few values or by the very end of a distribution, that
is what tells: known values are taken out of their bins, and the outermost bins end where the values
end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.spread import Spread, row_slices
from taqstore.statistics.bins import Floats, Layout

# Standard deviations of a count beyond which it is no chance.
_SIGNIFICANT = 3.0


@dataclass(frozen=True)
class Part:
    """Counts of rows in bins that all rows share, or that every row has of its own.

    Parameters
    ----------
    counts
        float64 ``(row, bin)``.
    spread
        Bins ``(bin,)`` or ``(row, bin)``.
    """

    counts: Floats
    spread: Spread

    @property
    def own(self) -> bool:
        """Whether every row has bins of its own."""
        return self.spread.left.ndim > 1

    def __getitem__(self, rows: Any) -> Part:
        """Some of the rows."""
        return Part(self.counts[rows], self.spread[rows] if self.own else self.spread)


def parts(held: Floats, spread: Spread, known: Floats | None = None) -> list[Part]:
    """Histograms with their known values told apart.

    Known values are points. An outermost bin ends at the outermost known value, between which and
    the bin's inner edge the other values are spread; but as many as the density of the next bin
    cannot explain (by three standard deviations) lie at that value, as where values were clipped.

    Parameters
    ----------
    held
        ``(row, bin)``.
    spread
        Bins ``(bin,)``; ``(row, bin)`` without `known`.
    known
        ``(row, value)``, NaN where there are fewer: values of each row that were counted, its least
        and its largest among them. What lies in no bin with a count is ignored.

    Returns
    -------
    Parts whose counts add up to `held`; the first has its bins.
    """
    if known is None or spread.points or not held.shape[1]:
        return [Part(held, spread)]
    value, index, weight = _found(held, spread, known)
    row = np.arange(len(held))
    rest = held.copy()
    np.subtract.at(rest, (row[:, None], index), weight)
    low, high = _ends(held, spread, value, index, weight)
    ends = []
    for end, other in ((low, high), (high, low)):
        left, right = end.interval(spread, other)
        count = rest[row, end.bin]
        rest[row, end.bin] = 0.0
        excess = end.excess(count, held, right - left, spread, other)
        weight[row, end.column] += excess
        ends.append((left, right, count - excess))
    left, right, count = (np.stack(side, axis=1) for side in zip(*ends, strict=True))
    left, right = np.where(count > 0, left, 0.0), np.where(count > 0, right, 1.0)
    points = Spread(value, value, points=True)
    return [Part(rest, spread), Part(weight, points), Part(count, Spread(left, right))]


def _found(
    held: Floats, spread: Spread, known: Floats
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Known values ascending, their bins, and 1 where they are taken: ``(row, value)`` each."""
    value = np.sort(known, axis=1).astype(np.float64)
    fresh = np.isfinite(value)
    fresh[:, 1:] &= value[:, 1:] != value[:, :-1]
    value = np.where(np.isfinite(value), value, 0.0)
    # Bins above zero hold their left ends, those below their right ends.
    above = np.searchsorted(spread.left, value, side="right") - 1
    index = np.where(value >= 0, above, np.searchsorted(spread.right, value))
    index = np.clip(index, 0, held.shape[1] - 1)
    inside = (spread.left[index] <= value) & (value <= spread.right[index])
    weight = (fresh & inside).astype(np.float64)
    row = np.arange(len(held))[:, None]
    spent = np.zeros(held.shape)
    np.add.at(spent, (row, index), weight)
    weight[spent[row, index] > held[row, index]] = 0.0
    return value, index, weight


@dataclass(frozen=True)
class _End:
    """The outermost bin of every row on one side; arrays ``(row,)``.

    `value` is where the values end and `column` that of the known value which says so, if `known`;
    `inner` is 1 on the low side and -1 on the high one: where the next bin lies.
    """

    bin: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    known: npt.NDArray[np.bool_]
    value: Floats
    inner: int

    def interval(self, spread: Spread, other: _End) -> tuple[Floats, Floats]:
        """Where the values of the bin that are not known can lie."""
        alone = self.bin == other.bin
        edge = spread.right if self.inner > 0 else spread.left
        far = np.where(alone, other.value, edge[self.bin])
        return (self.value, far) if self.inner > 0 else (far, self.value)

    def excess(
        self, count: Floats, held: Floats, width: Floats, spread: Spread, other: _End
    ) -> Floats:
        """How many of the count lie at the end.

        A bin that is not there holds nothing: whether it was left out depends on other rows.
        """
        beside = np.clip(self.bin + self.inner, 0, len(spread.left) - 1)
        ends = (spread.left, spread.right)
        outer, inner = ends if self.inner > 0 else ends[::-1]
        adjacent = inner[self.bin] == outer[beside]
        whole = (self.bin != other.bin) & ~(adjacent & (beside == other.bin))
        density = held[np.arange(len(held)), beside] / (spread.right - spread.left)[beside]
        density = np.where(adjacent, density, 0.0)
        surplus = count - density * width
        found = whole & (surplus > _SIGNIFICANT * np.sqrt(count))
        at_end = np.where(width > 0, np.where(found, surplus, 0.0), count)
        return np.where(self.known, at_end, 0.0)


def _ends(
    held: Floats,
    spread: Spread,
    value: Floats,
    index: npt.NDArray[np.int64],
    weight: Floats,
) -> tuple[_End, _End]:
    row, some = np.arange(len(held)), held > 0
    first, last = some.argmax(axis=1), held.shape[1] - 1 - some[:, ::-1].argmax(axis=1)
    taken = weight > 0
    columns = (taken.argmax(axis=1), weight.shape[1] - 1 - taken[:, ::-1].argmax(axis=1))
    ends = []
    for edge, outermost, column, inner in zip(
        (spread.left, spread.right), (first, last), columns, (1, -1), strict=True
    ):
        known = taken[row, column] & (index[row, column] == outermost)
        at = np.where(known, value[row, column], edge[outermost])
        ends.append(_End(outermost, column, known, at, inner))
    return ends[0], ends[1]


def occupied(pieces: Sequence[Part]) -> tuple[Floats, Floats]:
    """Outer ends (low, high) of what holds anything, ``(row,)``; NaN where nothing does."""
    low, high = (np.full(len(pieces[0].counts), end) for end in (np.inf, -np.inf))
    for part in pieces:
        held = part.counts > 0
        low = np.minimum(low, np.where(held, part.spread.left, np.inf).min(axis=1, initial=np.inf))
        high = np.maximum(
            high, np.where(held, part.spread.right, -np.inf).max(axis=1, initial=-np.inf)
        )
    some = low <= high
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def mean_over(
    counts: npt.NDArray[Any],
    spread: Spread,
    per_bin: Callable[[Spread, slice], Floats],
    *,
    known: Floats | None = None,
) -> Floats:
    """Mean over the counted values of a quantity known per bin, row by row; see `means_over`."""
    return means_over(counts, spread, [per_bin], known=known)[0]


def means_over(
    counts: npt.NDArray[Any],
    spread: Spread,
    per_bin: Sequence[Callable[[Spread, slice], Floats]],
    *,
    known: Floats | None = None,
) -> list[Floats]:
    """Means over the counted values of several quantities known per bin, row by row.

    Parameters
    ----------
    counts
        ``(row, bin)``.
    per_bin
        Each takes bins and the rows they are for, gives ``(bin,)`` or ``(row, bin)``; called for a
        few rows at a time, and only with bins that hold something.
    known
        ``(row, value)``; see `parts`.

    Returns
    -------
    float64 ``(row,)`` for each quantity; NaN where nothing was counted.
    """
    used = np.flatnonzero(counts.any(axis=0))
    own = spread.left.ndim > 1
    whole = len(used) == counts.shape[1]
    common = spread if whole else spread[..., used]
    means = [np.full(len(counts), np.nan) for _ in per_bin]
    for rows in row_slices(len(counts), len(used)):
        # The order in memory is that of a selection, whole or not: sums follow it to the last bit.
        held = (counts[rows] if whole else counts[rows][:, used]).astype(np.float64, order="F")
        total = held.sum(axis=-1)
        some = None if known is None else known[rows]
        pieces = parts(held, common[rows] if own else common, some)
        for mean, quantity in zip(means, per_bin, strict=True):
            summed = np.zeros(total.shape)
            for part in pieces:
                summed += in_order(part.counts * quantity(part.spread, rows))
            np.divide(summed, total, out=mean[rows], where=total > 0)
    return means


def in_order(products: Floats) -> Floats:
    """Sums over the last axis, from its first element to its last.

    So that bins that no row of a call has anything in change no bit, there or left out, and with
    them neither does how rows are dealt to calls.
    """
    if not products.shape[-1]:
        return np.zeros(products.shape[:-1])
    summed: Floats = np.cumsum(products, axis=-1)[..., -1]
    return summed


def known_rows(known: Floats | None, shape: tuple[int, ...]) -> Floats | None:
    """Known values ``(..., value)`` as ``(row, value)``, a row for every element of `shape`."""
    if known is None:
        return None
    return np.broadcast_to(known, (*shape, known.shape[-1])).reshape(-1, known.shape[-1])


def expected_error(
    counts: npt.ArrayLike, layout: Layout, quantizer: Quantizer, *, known: Floats | None = None
) -> Floats:
    """Mean squared error of quantizing counted values ``(..., bin)``, clipping included.

    Exact for values spread evenly over their bins, and where a bin holds a single value.

    Parameters
    ----------
    quantizer
        Its `step_size` broadcasts against the leading axes of `counts`.
    known
        ``(..., value)``; see `parts`.

    Returns
    -------
    float64 ``(...)``, in squared units of the values; NaN where nothing was counted.
    """
    array = layout.checked(counts)
    shape = np.broadcast_shapes(array.shape[:-1], np.shape(quantizer.step_size))
    used = np.flatnonzero(array.reshape(-1, layout.bins).any(axis=0))
    held = np.broadcast_to(array[..., used], (*shape, len(used)))
    held = held.reshape(prod(shape), len(used))
    step, zero = (
        np.broadcast_to(value, shape).ravel()
        for value in (quantizer.step_size, quantizer.zero_point)
    )
    flat = Quantizer(step, zero, quantizer.qmin, quantizer.qmax)
    values = known_rows(known, shape)
    mean = mean_over(
        held, Spread.of(layout)[used], lambda bins, rows: bins.error(flat[rows]), known=values
    )
    return mean.reshape(shape)

"""Float-bit-prefix histograms: counted by shifting bits, merged by adding, coarsened by summing.

A bin is the sign, the exponent and the top mantissa bits of a value, so the edges are fixed by the
number format: no range to guess, nothing falls outside, any two histograms of one `Layout` add
exactly. Counts are arrays ``(..., bin)``; every function works over the leading axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.statistics.bins import Counts, Floats, Layout

__all__ = [
    "Layout",
    "absolute_quantile",
    "add",
    "coarsen",
    "count",
    "fold",
    "mass_near_zero",
    "negative_fraction",
    "quantile",
]

# Values handled at once: the 64-bit indices bincount makes of them (512 KB) stay in the L2 cache.
CHUNK = 1 << 16


def count(values: npt.ArrayLike, layout: Layout) -> tuple[Counts, Counts]:
    """Count floating-point values of any shape into the bins of `layout`.

    Extra memory is bounded by a chunk, whatever the size and strides of `values`.

    Returns
    -------
    counts
        int64 ``(bins,)``.
    nonfinite
        int64 ``(3,)``: NaN, +Inf, -Inf.

    Raises
    ------
    TaqError
        The values are not floating point, or the layout's dtype cannot hold one of them exactly.
    """
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise TaqError(problem("a histogram needs floating-point values", found=str(array.dtype)))
    half, word = layout.zero_bin, layout.word
    sign = half + (1 << layout.mantissa_bits)  # code of negative zero: prefixes of one sign
    code_total = np.zeros(2 * sign, np.int64)
    lone = dict.fromkeys((half, sign + half, sign), 0)  # codes shared by +Inf, -Inf, -0.0
    for chunk in _chunks(array, max(CHUNK, code_total.size)):
        bits = _as_layout(chunk, layout).view(word)
        codes = np.bincount(bits >> word(layout.shift), minlength=2 * sign)
        for code in lone:
            if codes[code]:
                lone[code] += int(np.count_nonzero(bits == word(code << layout.shift)))
        code_total += codes
    positive, negative = code_total[:sign], code_total[sign:]
    counts = np.append(negative[:half][::-1], positive[:half])
    counts[half - 1 : half + 1] += (-lone[sign], lone[sign])
    infinite = (lone[half], lone[sign + half])
    nan = positive[half:].sum() + negative[half:].sum() - sum(infinite)
    return counts, np.array((nan, *infinite), np.int64)


def _chunks(array: npt.NDArray[Any], size: int) -> Iterator[npt.NDArray[Any]]:
    """Yield all values as flat, native-endian pieces, copying no more than a piece at a time."""
    yield from np.nditer(
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=[array.dtype.newbyteorder("=")],
        casting="equiv",
        buffersize=size,
    )


def _as_layout(chunk: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    if np.can_cast(chunk.dtype, layout.dtype):
        return chunk.astype(layout.dtype, copy=False)
    # What overflows or underflows is refused below; a signalling NaN is NaN like any other.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        cast = chunk.astype(layout.dtype)
        changed = (cast != chunk) & ~np.isnan(chunk)
    if changed.any():
        lost = chunk[changed][0]
        what = f"{chunk.dtype} values do not fit a {layout.dtype} histogram exactly"
        raise TaqError(problem(what, found=repr(float(lost)), remedy="use the float32 layout"))
    return cast


def add(first: npt.ArrayLike, *others: npt.ArrayLike) -> Counts:
    """Sum histograms of one layout; leading axes broadcast.

    Different layouts never have the same number of bins, so shapes tell them apart.

    Raises
    ------
    TaqError
        The numbers of bins differ.
    """
    total = np.array(first, np.int64)
    for other in others:
        if np.shape(other)[-1:] != total.shape[-1:]:
            found = f"{total.shape[-1]} and {np.shape(other)[-1]} bins"
            raise TaqError(problem("histograms of different layouts do not add", found=found))
        total = total + np.asarray(other, np.int64)
    return total


def coarsen(counts: npt.ArrayLike, layout: Layout, mantissa_bits: int) -> tuple[Counts, Layout]:
    """Counts of the same values in wider bins, as if counted with fewer mantissa bits.

    Raises
    ------
    TaqError
        `mantissa_bits` is more than the layout has.
    """
    checked = everywhere(counts, layout)
    if mantissa_bits > layout.mantissa_bits:
        what = f"{layout.mantissa_bits} mantissa bits cannot be coarsened to {mantissa_bits}"
        raise TaqError(problem(what))
    coarse = replace(layout, mantissa_bits=mantissa_bits, kept=())
    return checked.reshape(*checked.shape[:-1], coarse.bins, -1).sum(axis=-1), coarse


def everywhere(counts: npt.ArrayLike, layout: Layout) -> Counts:
    """Counts in all bins, of a layout that keeps some."""
    checked = layout.checked(counts)
    if not layout.kept:
        return checked
    whole = np.zeros((*checked.shape[:-1], 2 * layout.zero_bin), np.int64)
    whole[..., list(layout.kept)] = checked
    return whole


def fold(counts: npt.ArrayLike, layout: Layout) -> Counts:
    """Histogram of ``|x|``, shape ``(..., zero_bin)``, on `Layout.magnitude_edges`."""
    # Narrower integers are widened as they are added, not before.
    every = everywhere(counts, layout) if layout.kept else layout.integers(counts)
    zero = layout.zero_bin
    return np.add(every[..., zero:], every[..., zero - 1 :: -1], dtype=np.int64)


def quantile(counts: npt.ArrayLike, layout: Layout, q: npt.ArrayLike) -> Floats:
    """Quantiles of the finite values, linear between order statistics like ``np.quantile``.

    The values of a bin are taken as evenly spread over what the dtype can represent in it. An order
    statistic is therefore off by less than the width of its bin, and exact where a bin holds one
    value (``float16`` with 10 mantissa bits).

    Parameters
    ----------
    q
        Probabilities in [0, 1], any shape.

    Returns
    -------
    float64 ``(..., *q.shape)``; NaN where nothing was counted.
    """
    low, high = layout.representable()
    return _quantile(layout.checked(counts), low, high, np.asarray(q, np.float64))


def absolute_quantile(counts: npt.ArrayLike, layout: Layout, q: npt.ArrayLike) -> Floats:
    """Quantiles of ``|x|``; see `quantile`."""
    low, high = _magnitudes(layout.dtype, layout.mantissa_bits)
    return _quantile(fold(counts, layout), low, high, np.asarray(q, np.float64))


# Of few rows they take as long to make as the quantiles themselves.
@lru_cache(maxsize=8)
def _magnitudes(dtype: str, mantissa_bits: int) -> tuple[Floats, Floats]:
    """Smallest and largest magnitude of every bin of ``|x|``."""
    layout = Layout(dtype, mantissa_bits)
    low, high = (side[layout.zero_bin :] for side in layout.representable())
    return low, high


def _quantile(counts: Counts, low: Floats, high: Floats, q: Floats) -> Floats:
    if not np.all((q >= 0) & (q <= 1)):
        raise MisuseError(problem("quantiles lie between 0 and 1", found=str(q)))
    # One running sum over all rows turns a search per row into a single sorted search.
    bins, rows = counts.shape[-1], counts.size // counts.shape[-1]
    edge = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=edge[1:])
    total = np.diff(edge[::bins]).reshape(rows, 1)
    last = np.maximum(total - 1, 0)
    position = last * q.reshape(1, -1)
    rank = position.astype(np.int64)
    ranks = np.concatenate([rank, np.minimum(rank + 1, last)], axis=1)
    below, above = np.split(_order_statistic(edge, bins, low, high, ranks), 2, axis=1)
    result = below + (position - rank) * (above - below)
    return np.where(total > 0, result, np.nan).reshape(counts.shape[:-1] + q.shape)


def _order_statistic(edge: Counts, bins: int, low: Floats, high: Floats, rank: Counts) -> Floats:
    """Value at 0-based `rank` ``(rows, k)`` of each row of counts, by their running sum."""
    target = rank + edge[:-1:bins, None]
    index = np.minimum(np.searchsorted(edge, target, side="right") - 1, max(len(edge) - 2, 0))
    held = np.maximum(edge[index + 1] - edge[index], 1)
    where = (target - edge[index] + 0.5) / held
    index %= bins
    values: Floats = low[index] + where * (high - low)[index]
    return values


def negative_fraction(counts: npt.ArrayLike, layout: Layout) -> Floats:
    """Exact fraction of finite values below zero, shape ``(...)``; NaN where none was counted."""
    checked = everywhere(counts, layout)
    return _share(checked[..., : layout.zero_bin].sum(axis=-1), checked)


def mass_near_zero(counts: npt.ArrayLike, layout: Layout, bound: npt.ArrayLike) -> Floats:
    """Fraction of finite values with ``|x| < bound``, shape ``(...)``.

    Exact where `bound` is a bin edge, linear within a bin elsewhere. `bound` broadcasts against the
    leading axes.
    """
    folded, edges = fold(counts, layout), layout.magnitude_edges()
    limit = np.broadcast_to(np.asarray(bound, np.float64), folded.shape[:-1])
    index = np.clip(np.searchsorted(edges, limit, side="right") - 1, 0, folded.shape[-1] - 1)
    within = np.clip((limit - edges[index]) / (edges[index + 1] - edges[index]), 0.0, 1.0)
    held = np.take_along_axis(folded, index[..., None], axis=-1)[..., 0]
    through = np.take_along_axis(np.cumsum(folded, axis=-1), index[..., None], axis=-1)[..., 0]
    return _share(through - held * (1.0 - within), folded)


def _share(part: npt.NDArray[Any], counts: Counts) -> Floats:
    total = counts.sum(axis=-1)
    share = np.full(total.shape, np.nan)
    np.divide(part, total, out=share, where=total > 0)
    return share

"""Float-bit-prefix histograms: counted by shifting bits, merged by adding, coarsened by summing.

A bin is the sign, the exponent and the top mantissa bits of a value, so the edges are fixed by the
number format: no range to guess, nothing falls outside, any two histograms of one `Layout` add
exactly. Counts are arrays ``(..., bin)``; every function works over the leading axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from taqstore.errors import TaqError, problem

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Above this a float32 layout would no longer fit in a cache, and float16 has no more bits.
MAX_MANTISSA_BITS = 10
# Values handled at once: the 64-bit indices bincount makes of them (1 MB) stay in the L2 cache.
CHUNK = 1 << 17


class _Format(NamedTuple):
    word: type[np.unsignedinteger[Any]]
    exponent_bits: int
    mantissa_bits: int
    limit: float  # the power of two just above the largest finite value


_FORMATS = {
    "float16": _Format(np.uint16, 5, 10, 2.0**16),
    "float32": _Format(np.uint32, 8, 23, 2.0**128),
}


@dataclass(frozen=True)
class Layout:
    """Which bits of a value name its bin; only equal layouts merge.

    Bins ascend by value. Bin `zero_bin` is ``[0, first)`` and takes negative zero too; bins above
    it are ``[left, right)``, bins below it ``(left, right]`` without zero, so the counts below
    `zero_bin` are exactly the negative values. The relative width of a bin is ``2**-mantissa_bits``
    (absolute among subnormals).

    Parameters
    ----------
    dtype
        ``float16`` or ``float32`` (for float32 data and for bfloat16 data widened to float32).
    mantissa_bits
        0 to 10. At 10 each ``float16`` bin holds a single value.
    """

    dtype: str = "float16"
    mantissa_bits: int = 5

    def __post_init__(self) -> None:
        if self.dtype not in _FORMATS:
            known = " or ".join(_FORMATS)
            raise TaqError(problem(f"histogram layout {self.dtype!r} is not known", remedy=known))
        if not 0 <= self.mantissa_bits <= MAX_MANTISSA_BITS:
            what = f"mantissa_bits must be 0 to {MAX_MANTISSA_BITS}"
            raise TaqError(problem(what, found=str(self.mantissa_bits)))

    @property
    def zero_bin(self) -> int:
        """Index of the bin ``[0, first)``, which is also the number of bins of either sign."""
        return ((1 << _FORMATS[self.dtype].exponent_bits) - 1) << self.mantissa_bits

    @property
    def bins(self) -> int:
        """Number of finite bins: 1,984 for ``float16`` with 5 mantissa bits."""
        return 2 * self.zero_bin

    @property
    def shift(self) -> int:
        """Mantissa bits a bin does not tell apart."""
        return _FORMATS[self.dtype].mantissa_bits - self.mantissa_bits

    @property
    def attrs(self) -> dict[str, str | int]:
        """Attributes that name the layout beside stored counts."""
        return {"layout": self.dtype, "mantissa_bits": self.mantissa_bits}

    def magnitude_edges(self) -> Floats:
        """Edges of the bins of ``|x|``, ascending from 0, shape ``(zero_bin + 1,)``."""
        edges = self._values(np.arange(self.zero_bin))
        return np.append(edges, _FORMATS[self.dtype].limit)

    def edges(self) -> Floats:
        """Bin edges, ascending, shape ``(bins + 1,)``; zero is one of them."""
        magnitude = self.magnitude_edges()
        return np.concatenate([-magnitude[:0:-1], magnitude])

    @property
    def left(self) -> Floats:
        """Left edge of every bin, shape ``(bins,)``."""
        return self.edges()[:-1]

    @property
    def right(self) -> Floats:
        """Right edge of every bin, shape ``(bins,)``."""
        return self.edges()[1:]

    def representable(self) -> tuple[Floats, Floats]:
        """Smallest and largest value of the dtype in every bin, each of shape ``(bins,)``."""
        inner = self._values(np.arange(self.zero_bin))
        outer = self._values(np.arange(self.zero_bin), low_bits=(1 << self.shift) - 1)
        below = inner.copy()
        # Zero is not negative; with all bits kept, the bin below zero has no value at all.
        below[0] = self._values(np.arange(1), low_bits=1)[0] if self.shift else 0.0
        return np.append(-outer[::-1], inner), np.append(-below[::-1], outer)

    def _values(self, prefix: npt.NDArray[Any], *, low_bits: int = 0) -> Floats:
        word = _FORMATS[self.dtype].word
        bits = (prefix.astype(word) << word(self.shift)) | word(low_bits)
        return bits.view(self.dtype).astype(np.float64)


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
    half, word = layout.zero_bin, _FORMATS[layout.dtype].word
    sign = half + (1 << layout.mantissa_bits)  # code of negative zero: prefixes of one sign
    code_total = np.zeros(2 * sign, np.int64)
    lone = dict.fromkeys((half, sign + half, sign), 0)  # codes shared by +Inf, -Inf, -0.0
    for chunk in _chunks(array):
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


def _chunks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield all values as flat, native-endian pieces, copying no more than a piece at a time."""
    yield from np.nditer(
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=[array.dtype.newbyteorder("=")],
        casting="equiv",
        buffersize=CHUNK,
    )


def _as_layout(chunk: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    if np.can_cast(chunk.dtype, layout.dtype):
        return chunk.astype(layout.dtype, copy=False)
    with np.errstate(over="ignore", under="ignore"):
        cast = chunk.astype(layout.dtype)
    if not np.array_equal(cast, chunk, equal_nan=True):
        lost = chunk[(cast != chunk) & ~np.isnan(chunk)][0]
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
    checked = _checked(counts, layout)
    if mantissa_bits > layout.mantissa_bits:
        what = f"{layout.mantissa_bits} mantissa bits cannot be coarsened to {mantissa_bits}"
        raise TaqError(problem(what))
    coarse = replace(layout, mantissa_bits=mantissa_bits)
    return checked.reshape(*checked.shape[:-1], coarse.bins, -1).sum(axis=-1), coarse


def fold(counts: npt.ArrayLike, layout: Layout) -> Counts:
    """Histogram of ``|x|``, shape ``(..., zero_bin)``, on `Layout.magnitude_edges`."""
    checked = _checked(counts, layout)
    return checked[..., layout.zero_bin :] + checked[..., layout.zero_bin - 1 :: -1]


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
    return _quantile(_checked(counts, layout), low, high, np.asarray(q, np.float64))


def absolute_quantile(counts: npt.ArrayLike, layout: Layout, q: npt.ArrayLike) -> Floats:
    """Quantiles of ``|x|``; see `quantile`."""
    low, high = (side[layout.zero_bin :] for side in layout.representable())
    return _quantile(fold(counts, layout), low, high, np.asarray(q, np.float64))


def _quantile(counts: Counts, low: Floats, high: Floats, q: Floats) -> Floats:
    if not np.all((q >= 0) & (q <= 1)):
        raise TaqError(problem("quantiles lie between 0 and 1", found=str(q)))
    total = counts.sum(axis=-1).reshape(-1, 1)
    last = np.maximum(total - 1, 0)
    position = last * q.reshape(1, -1)
    rank = position.astype(np.int64)
    below = _order_statistic(counts, low, high, rank)
    above = _order_statistic(counts, low, high, np.minimum(rank + 1, last))
    result = below + (position - rank) * (above - below)
    return np.where(total > 0, result, np.nan).reshape(counts.shape[:-1] + q.shape)


def _order_statistic(counts: Counts, low: Floats, high: Floats, rank: Counts) -> Floats:
    """Value at 0-based `rank` ``(rows, k)`` of each of the flattened rows of `counts`."""
    # One running sum over all rows turns a search per row into a single sorted search.
    edge = np.concatenate([[0], np.cumsum(counts)])
    bins = counts.shape[-1]
    target = rank + edge[:-1:bins, None] if counts.size else rank
    index = np.minimum(np.searchsorted(edge, target, side="right") - 1, max(counts.size - 1, 0))
    held = np.maximum(edge[index + 1] - edge[index], 1)
    where = (target - edge[index] + 0.5) / held
    return low[index % bins] + where * (high - low)[index % bins]


def negative_fraction(counts: npt.ArrayLike, layout: Layout) -> Floats:
    """Exact fraction of finite values below zero, shape ``(...)``; NaN where none was counted."""
    checked = _checked(counts, layout)
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
    empty = np.full(total.shape, np.nan)
    return np.divide(part, total, out=empty, where=total > 0)


def _checked(counts: npt.ArrayLike, layout: Layout) -> Counts:
    array = np.asarray(counts)
    if array.dtype.kind not in "iu" or array.shape[-1:] != (layout.bins,):
        found = f"{array.dtype} of shape {array.shape}"
        what = f"counts do not match the layout: integers of shape (..., {layout.bins}) expected"
        raise TaqError(problem(what, where=f"{layout.dtype}/{layout.mantissa_bits}", found=found))
    return array.astype(np.int64, copy=False)

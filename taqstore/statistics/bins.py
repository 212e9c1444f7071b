"""Which bits of a value name its histogram bin, and where the edges of the bins lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from taqstore.asked import word_of
from taqstore.errors import TaqError, problem

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# All that float16 has; a float32 layout of more would have over half a million bins.
MAX_MANTISSA_BITS = 10


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
    kept
        Bins that counts have, ascending, where those without a count in any row were left out; by
        default all. `left`, `right`, `representable` and `bins` are of these, all else is of all.
    """

    dtype: str = "float16"
    mantissa_bits: int = 5
    kept: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        word_of(self.dtype, _FORMATS, "histogram layout")
        if not 0 <= self.mantissa_bits <= MAX_MANTISSA_BITS:
            what = f"mantissa_bits must be 0 to {MAX_MANTISSA_BITS}"
            raise TaqError(problem(what, found=str(self.mantissa_bits)))

    @property
    def zero_bin(self) -> int:
        """Index of the bin ``[0, first)``, which is also the number of bins of either sign."""
        return ((1 << _FORMATS[self.dtype].exponent_bits) - 1) << self.mantissa_bits

    @property
    def bins(self) -> int:
        """Number of finite bins, or of those kept: 1,984 for ``float16`` with 5 mantissa bits."""
        return len(self.kept) or 2 * self.zero_bin

    def keeping(self, kept: npt.ArrayLike) -> Layout:
        """The layout of counts that were cut to some of the bins."""
        return replace(self, kept=tuple(np.asarray(kept).tolist()))

    def _some(self, of_all: Floats) -> Floats:
        return of_all[np.array(self.kept)] if self.kept else of_all

    @property
    def word(self) -> type[np.unsignedinteger[Any]]:
        """Unsigned integer type as wide as a value."""
        return _FORMATS[self.dtype].word

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
        return self._some(self.edges()[:-1])

    @property
    def right(self) -> Floats:
        """Right edge of every bin, shape ``(bins,)``."""
        return self._some(self.edges()[1:])

    def representable(self) -> tuple[Floats, Floats]:
        """Smallest and largest value of the dtype in every bin, each of shape ``(bins,)``."""
        inner = self._values(np.arange(self.zero_bin))
        outer = self._values(np.arange(self.zero_bin), low_bits=(1 << self.shift) - 1)
        below = inner.copy()
        # Zero is not negative; with all bits kept, the bin below zero has no value at all.
        below[0] = self._values(np.arange(1), low_bits=1)[0] if self.shift else 0.0
        ends = np.append(-outer[::-1], inner), np.append(-below[::-1], outer)
        return self._some(ends[0]), self._some(ends[1])

    def checked(self, counts: npt.ArrayLike) -> Counts:
        """`counts` as int64, after a check that they can be of this layout.

        Raises
        ------
        TaqError
            The last axis does not have `bins` elements, or these are not integers.
        """
        return self.integers(counts).astype(np.int64, copy=False)

    def integers(self, counts: npt.ArrayLike) -> npt.NDArray[np.integer[Any]]:
        """`counts` as they are; checked, with errors, as `checked`."""
        array = np.asarray(counts)
        if array.dtype.kind not in "iu" or array.shape[-1:] != (self.bins,):
            what = f"counts must be integers of shape (..., {self.bins}) in this layout"
            where = f"{self.dtype} histogram with {self.mantissa_bits} mantissa bits"
            found = f"{array.dtype} of shape {array.shape}"
            raise TaqError(problem(what, where=where, found=found))
        return array

    def _values(self, prefix: npt.NDArray[Any], *, low_bits: int = 0) -> Floats:
        bits = (prefix.astype(self.word) << self.word(self.shift)) | self.word(low_bits)
        values: Floats = bits.view(self.dtype).astype(np.float64)
        return values

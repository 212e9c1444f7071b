"""Step sizes, zero points and fake quantization of uniform integer quantizers.

Rounding is half to even. A clip bound is called alpha (or low and high), never scale; the step size
is derived from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import TaqError, problem

Array = npt.NDArray[Any]

MIN_BITS, MAX_BITS = 2, 16


@dataclass(frozen=True)
class Quantizer:
    """A uniform quantizer: ``clip(rint(x / step_size) + zero_point, qmin, qmax)``.

    Parameters
    ----------
    step_size
        Width of one step, any shape that broadcasts against the values; 0 stands for a range that
        holds nothing but zero, NaN for an unknown one.
    zero_point
        Integer that stands for 0.0, of the shape of `step_size` (0 when symmetric).
    qmin, qmax
        Smallest and largest integer.
    """

    step_size: Array
    zero_point: Array
    qmin: int
    qmax: int

    def __getitem__(self, index: Any) -> Quantizer:
        """The quantizers at `index` of an array of them."""
        return Quantizer(self.step_size[index], self.zero_point[index], self.qmin, self.qmax)

    def quantize(self, x: npt.ArrayLike) -> Array:
        """Integers that stand for `x`, as floats, so that NaN stays NaN.

        Computed in the common dtype of `x` and `step_size`.
        """
        values = np.asarray(x)
        used = np.broadcast_to(self.step_size != 0, np.broadcast(values, self.step_size).shape)
        level = np.zeros(used.shape, np.result_type(values, self.step_size))
        np.divide(values, self.step_size, out=level, where=used)
        np.rint(level, out=level)
        np.clip(level, *self.levels, out=level)
        return np.add(level, self.zero_point, out=level, casting="same_kind")

    def dequantize(self, q: npt.ArrayLike) -> Array:
        """Values that the integers `q` stand for."""
        return np.asarray((q - self.zero_point.astype(self.step_size.dtype)) * self.step_size)

    def fake_quantize(self, x: npt.ArrayLike) -> Array:
        """`x` rounded to the quantizer's grid: quantized and dequantized."""
        return self.dequantize(self.quantize(x))

    @property
    def levels(self) -> tuple[Array, Array]:
        """Ends of the grid in steps from 0.0, ``(qmin, qmax) - zero_point``."""
        low, high = (self.qmin - self.zero_point, self.qmax - self.zero_point)
        return low.astype(self.step_size.dtype), high.astype(self.step_size.dtype)


def integer_range(bits: int, *, signed: bool = True, narrow_range: bool = False) -> tuple[int, int]:
    """Smallest and largest integer of `bits` bits.

    `narrow_range` drops the smallest one, so that a signed range is symmetric about 0.

    Raises
    ------
    TaqError
        `bits` is not 2 to 16.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise TaqError(problem(f"bits must be {MIN_BITS} to {MAX_BITS}", found=str(bits)))
    low = -(1 << (bits - 1)) if signed else 0
    return low + narrow_range, low + (1 << bits) - 1


def symmetric(alpha: npt.ArrayLike, *, bits: int = 8, narrow_range: bool = False) -> Quantizer:
    """Symmetric signed quantizer with clip bound `alpha`: ``step_size = alpha / (2**(b-1) - 1)``.

    Raises
    ------
    TaqError
        A bound is negative.
    """
    bound = _floats(alpha)
    if np.any(bound < 0):
        raise TaqError(problem("a clip bound alpha cannot be negative", found=str(bound.min())))
    qmin, qmax = integer_range(bits, narrow_range=narrow_range)
    step = np.asarray(bound / qmax)
    return Quantizer(step, np.zeros(step.shape, np.int64), qmin, qmax)


def affine(
    low: npt.ArrayLike, high: npt.ArrayLike, *, bits: int = 8, signed: bool = False
) -> Quantizer:
    """Affine quantizer of the range [`low`, `high`] widened to hold 0.

    ``step_size = (max(high, 0) - min(low, 0)) / (2**b - 1)`` and
    ``zero_point = clip(qmin - rint(min(low, 0) / step_size), qmin, qmax)``.

    Raises
    ------
    TaqError
        `low` is above `high` somewhere.
    """
    lower, upper = _floats(low), _floats(high)
    if np.any(lower > upper):
        raise TaqError(problem("a range has its low end above its high end"))
    qmin, qmax = integer_range(bits, signed=signed)
    bottom = np.minimum(lower, 0)
    step = np.asarray((np.maximum(upper, 0) - bottom) / (qmax - qmin))
    # A range of nothing (step 0) or of unknown ends (NaN) has no grid to place zero on.
    known = step > 0
    shift = np.zeros(step.shape, step.dtype)
    np.divide(bottom, step, out=shift, where=known)
    zero_point = np.clip(qmin - np.rint(shift), qmin, qmax).astype(np.int64)
    return Quantizer(step, zero_point, qmin, qmax)


def _floats(values: npt.ArrayLike) -> Array:
    """As float32 or wider: float16 steps would lose what the extrema still have."""
    array = np.asarray(values)
    return array.astype(np.result_type(array, np.float32), copy=False)

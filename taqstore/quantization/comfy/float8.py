"""Numbers of eight bits, e4m3: a sign, four bits of exponent, three of fraction; no infinities.

Micikevicius et al., "FP8 formats for deep learning" (arXiv 2209.05433). The largest is 448, the
smallest above 0 is 2^-9; the bits 0x7F and 0xFF are no number.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.errors import TaqError, problem

LARGEST = 448.0
_EXPONENT_BIAS, _FRACTION = 7, 8


def float8_values(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 that these bits stand for, exactly; any shape."""
    return _table()[bits]


def float8_bits(values: ArrayLike) -> NDArray[np.uint8]:
    """Bits nearest to numbers of 0 or more, half to even; any shape.

    Raises
    ------
    TaqError
        One is negative, no number, or rounds to more than 448.

    >>> float8_values(float8_bits([0.0, 1.06, 1.0625, 447.0])).tolist()
    [0.0, 1.0, 1.0, 448.0]
    """
    wide = np.asarray(values, np.float64)
    if not (wide >= 0).all() or (wide > LARGEST + 16).any():
        raise TaqError(problem("no number of 0 to 448", found=str(wide.min() if wide.size else "")))
    known = _table()[:0x7F].astype(np.float64)
    above = np.clip(np.searchsorted(known, wide), 1, len(known) - 1)
    middle = (known[above - 1] + known[above]) / 2
    # Of two that are equally near, the one whose last bit is 0.
    up = (wide > middle) | ((wide == middle) & (above % 2 == 0))
    return np.asarray(above - ~up, np.uint8)


@cache
def _table() -> NDArray[np.float32]:
    bits = np.arange(256)
    exponent, fraction = bits >> 3 & 15, bits & 7
    normal = (1 + fraction / _FRACTION) * 2.0 ** (exponent - _EXPONENT_BIAS)
    small = fraction / _FRACTION * 2.0 ** (1 - _EXPONENT_BIAS)
    values = np.where(exponent == 0, small, normal) * np.where(bits & 128, -1, 1)
    values[[0x7F, 0xFF]] = np.nan
    return values.astype(np.float32)

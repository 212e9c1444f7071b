"""Numbers of eight bits against their definition, written out."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.errors import TaqError
from taqstore.quantization.comfy.float8 import float8_bits, float8_values

FINITE = np.arange(0x7F, dtype=np.uint8)


def by_hand(bits: int) -> float:
    sign = -1.0 if bits >> 7 else 1.0
    exponent, fraction = bits >> 3 & 15, bits & 7
    if exponent == 15 and fraction == 7:
        return float("nan")
    if exponent == 0:
        return sign * fraction * 2.0**-9
    return sign * (8 + fraction) * 2.0 ** (exponent - 10)


def test_every_number() -> None:
    found = float8_values(np.arange(256, dtype=np.uint8))
    assert np.array_equal(found, np.float32([by_hand(b) for b in range(256)]), equal_nan=True)
    assert np.array_equal(float8_bits(float8_values(FINITE)), FINITE)


def test_the_nearest_half_to_even() -> None:
    known = float8_values(FINITE).astype(np.float64)
    middle = (known[1:] + known[:-1]) / 2
    assert np.array_equal(float8_bits(middle) % 2, np.zeros(len(middle)))
    assert np.array_equal(float8_bits(np.nextafter(middle, 0)), FINITE[:-1])
    assert np.array_equal(float8_bits(np.nextafter(middle, 500)), FINITE[1:])
    assert float8_bits([[0.0, 1e-9], [448.0, 463.0]]).tolist() == [[0, 0], [126, 126]]


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf, 470.0])
def test_what_it_does_not_hold(value: float) -> None:
    with pytest.raises(TaqError, match="no number of 0 to 448"):
        float8_bits([1.0, value])

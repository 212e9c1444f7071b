"""Packed codes against a loop over bits, and against MLX's own."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.errors import LayoutError
from taqstore.quantization.packed_affine import PACKED_BITS, pack_codes, unpack_codes

RNG = np.random.default_rng(7)


def packed_by_hand(codes: np.ndarray, bits: int) -> list[list[int]]:
    """A row as one whole number, its first code lowest, cut into words."""
    rows = []
    for row in codes.tolist():
        whole = sum(code << (bits * place) for place, code in enumerate(row))
        rows.append([whole >> (32 * n) & 0xFFFFFFFF for n in range(len(row) * bits // 32)])
    return rows


@pytest.mark.parametrize("inputs", [32, 96, 384])
@pytest.mark.parametrize("bits", PACKED_BITS)
def test_words_are_a_run_of_bits_lowest_first(bits: int, inputs: int) -> None:
    codes = RNG.integers(0, 1 << bits, (3, inputs))
    packed = pack_codes(codes, bits)
    assert packed.dtype == np.uint32
    assert packed.tolist() == packed_by_hand(codes, bits)
    assert np.array_equal(unpack_codes(packed, bits), codes)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", PACKED_BITS)
def test_mlx_packs_the_same_bits(bits: int, group_size: int) -> None:
    mx = pytest.importorskip("mlx.core")
    weight = mx.array(RNG.normal(size=(5, 384)).astype(np.float32))
    words, scales, biases = mx.quantize(weight, group_size=group_size, bits=bits)
    codes = unpack_codes(np.array(words), bits)
    assert np.array_equal(pack_codes(codes, bits), np.array(words))
    told = mx.dequantize(words, scales, biases, group_size=group_size, bits=bits)
    grouped = codes.reshape(5, -1, group_size).astype(np.float32)
    meant = np.array(scales)[..., None] * grouped + np.array(biases)[..., None]
    assert np.array_equal(meant.reshape(5, 384), np.array(told))


def test_what_does_not_fill_words_is_refused() -> None:
    codes = np.zeros((2, 48), np.uint8)
    with pytest.raises(LayoutError, match="48 codes"):
        pack_codes(codes, 4)
    with pytest.raises(LayoutError, match="7 bits"):
        pack_codes(codes[:, :32], 7)
    with pytest.raises(LayoutError, match="0 to 7"):
        pack_codes(codes[:, :32] + 8, 3)
    with pytest.raises(LayoutError, match="0 to 7"):
        pack_codes(codes[:, :32].astype(np.int8) - 1, 3)
    with pytest.raises(LayoutError, match="2 words"):
        unpack_codes(np.zeros((1, 2), np.uint32), 3)


def test_no_rows_are_no_words() -> None:
    assert pack_codes(np.zeros((0, 64), np.uint8), 5).shape == (0, 10)
    assert unpack_codes(np.zeros((0, 10), np.uint32), 5).shape == (0, 64)

"""Rotated weights and second moments against whole matrices."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.errors import LayoutError
from taqstore.quantization.comfy.rotation import (
    hadamard,
    rotated,
    rotated_moments,
    rotation_size,
)

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_the_matrix_is_its_own_inverse(size: int) -> None:
    found = hadamard(size).astype(np.float64)
    assert np.array_equal(found, found.T)
    assert np.array_equal(found @ found, np.eye(size))
    assert np.array_equal(np.abs(found), np.full((size, size), size**-0.5))


def test_its_entries_are_those_of_the_kronecker_power() -> None:
    """Entry (i, j) is a product over digits of base 4: -1 where they are opposite, i + j = 3."""
    found = hadamard(64) * 8
    for i, j in RNG.integers(0, 64, (200, 2)):
        signs = [-1 if i // 4**k % 4 + j // 4**k % 4 == 3 else 1 for k in range(3)]
        assert found[i, j] == np.prod(signs)


def whole(inputs: int, size: int) -> np.ndarray:
    return np.kron(np.eye(inputs // size), hadamard(size).astype(np.float64))


@pytest.mark.parametrize(("inputs", "size"), [(48, 16), (192, 64), (512, 256)])
def test_products_stay_what_they_are(inputs: int, size: int) -> None:
    assert rotation_size(inputs) == size
    weight, x = RNG.normal(size=(5, inputs)), RNG.normal(size=(7, inputs))
    turned = rotated(weight, size)
    assert np.allclose(turned, weight @ whole(inputs, size), rtol=1e-12, atol=1e-12)
    assert np.allclose(rotated(x, size) @ turned.T, x @ weight.T, rtol=1e-11, atol=1e-11)
    assert np.allclose(rotated(turned, size), weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", [1, 4, 16, 64, 192, 256])
@pytest.mark.parametrize(("inputs", "size"), [(192, 64), (48, 16)])
def test_moments_of_any_block_are_rotated(inputs: int, size: int, block: int) -> None:
    """Against R H R of the whole block-diagonal matrix; padded where a block is larger."""
    width = min(block, inputs) if block == 192 else block
    count = -(-inputs // width)
    x = RNG.normal(size=(300, inputs)) * np.exp(RNG.normal(size=inputs))
    full, blocks = x.T @ x, np.zeros((count, width, width))
    kept = np.zeros_like(full)
    for index in range(count):
        inside = slice(index * width, min(inputs, (index + 1) * width))
        kept[inside, inside] = full[inside, inside]
        length = inside.stop - inside.start
        blocks[index, :length, :length] = full[inside, inside]
    given = np.diagonal(full) if block == 1 else blocks
    found = rotated_moments(given, inputs, size)
    wanted = whole(inputs, size) @ kept @ whole(inputs, size)
    wide = found.shape[1]
    assert wide == max(width, size)
    for index, part in enumerate(found):
        inside = slice(index * wide, min(inputs, (index + 1) * wide))
        length = inside.stop - inside.start
        assert np.allclose(part[:length, :length], wanted[inside, inside], rtol=1e-10, atol=1e-8)
        assert not part[length:].any()
        assert not part[:, length:].any()


def test_what_cannot_be_rotated() -> None:
    with pytest.raises(LayoutError, match="40 inputs are no multiple of 16"):
        rotation_size(40)
    with pytest.raises(LayoutError, match="second moments of 24 inputs"):
        rotated_moments(np.zeros((2, 24, 24)), 48, 16)

"""Weights of four bits in ComfyUI's layout against loops written out."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.errors import LayoutError
from taqstore.quantization.comfy.codebook import LEVELS, W4A8, w4a8_gptq, w4a8_nearest
from taqstore.quantization.comfy.float8 import float8_values
from taqstore.quantization.comfy.rotation import hadamard, rotated, rotated_moments
from taqstore.quantization.gptq import prepare

RNG = np.random.default_rng(8)
WEIGHT = (RNG.normal(size=(6, 192)) * np.exp(RNG.normal(size=(6, 1))) / 10).astype(np.float32)
X = RNG.normal(size=(400, 24)) @ RNG.normal(size=(24, 192)) + RNG.normal(size=(400, 192)) / 4
X *= np.exp(RNG.normal(size=192))


def decoded(found: W4A8) -> np.ndarray:
    """By hand, from what a file holds."""
    packed = found.packed().view(np.uint8)
    out = np.zeros((len(packed), packed.shape[1] * 2))
    for row, column in np.ndindex(out.shape):
        byte = int(packed[row, column // 2])
        code = byte >> 4 if column % 2 else byte & 15
        scale = float8_values(found.group_scale[row, column // 16])
        integer = np.clip(np.rint(np.float32(LEVELS[code] * scale)), -127, 127)
        out[row, column] = integer * found.channel_scale[row]
    size = found.rotation
    return out @ np.kron(np.eye(out.shape[1] // size), hadamard(size))


@pytest.mark.parametrize("rotation", [16, 64])
def test_it_stands_for_what_it_says(rotation: int) -> None:
    found = w4a8_nearest(WEIGHT, rotation=rotation)
    assert found.packed().dtype == np.int8
    assert found.packed().shape == (6, 96)
    assert found.group_scale.shape == (6, 12)
    assert np.allclose(found.dequantized(), decoded(found), rtol=0, atol=1e-6)
    error = np.square(found.dequantized() - WEIGHT).mean() / np.square(WEIGHT).mean()
    assert 0.05**2 < error < 0.09**2  # 16 levels of a normal distribution in groups of 16


def test_codes_are_the_nearest_of_their_group() -> None:
    found = w4a8_nearest(WEIGHT, rotation=64)
    turned = rotated(WEIGHT, 64)
    for row, column in np.ndindex(turned.shape):
        scale = float8_values(found.group_scale[row, column // 16])
        integers = np.clip(np.rint(LEVELS * scale), -127, 127)
        away = np.abs(integers - turned[row, column] / found.channel_scale[row])
        assert away[found.codes[row, column]] == away.min()


@pytest.mark.parametrize("block", [1, 16, 64, None])
def test_gptq_leaves_less_on_the_same_grid(block: int | None) -> None:
    """Output error on the inputs themselves, in the basis that they came in."""
    moment = X.T @ X
    if block == 1:
        blocks = np.diagonal(moment)
    else:
        size = block or 192
        starts = range(0, 192, size)
        blocks = np.stack([moment[i : i + size, i : i + size] for i in starts])
    plain = w4a8_nearest(WEIGHT, rotation=64)
    prepared = prepare(rotated_moments(blocks, 192, 64))
    found, told = w4a8_gptq(WEIGHT, prepared, rotation=64)
    assert np.array_equal(found.group_scale, plain.group_scale)
    assert np.array_equal(found.channel_scale, plain.channel_scale)
    assert np.array_equal(found.rotated_weights(), told.weights)
    assert (told.output_error <= told.nearest_error).all()

    def left(one: W4A8) -> float:
        return float(np.square(X @ (one.dequantized() - WEIGHT).T.astype(np.float64)).sum())

    most = {1: 0.3, 16: 0.5, 64: 0.25, None: 0.12}[block]
    assert left(found) < most * left(plain)
    if block is None:
        assert left(found) == pytest.approx(told.output_error.sum(), rel=1e-3)


def test_rows_of_nothing_stay_nothing() -> None:
    weight = WEIGHT.copy()
    weight[2] = 0
    weight[3, :64] = 0
    found = w4a8_nearest(weight, rotation=64).dequantized()
    assert np.abs(found[2]).max() < 1e-8
    assert np.abs(found[3, :64]).max() < 1e-8


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(LayoutError, match="192 inputs are no multiple of 256"):
        w4a8_nearest(WEIGHT, rotation=256)

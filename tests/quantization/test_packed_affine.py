"""Packed affine weights against the grids they come from, and as MLX itself unpacks them."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.errors import LayoutError, MisuseError
from taqstore.quantization.integer_grid import IntegerGrid, affine_grid, symmetric_grid
from taqstore.quantization.packed_affine import (
    Packing,
    mlx_group_size,
    packed_bytes,
    packed_words,
    packing_of,
)

RNG = np.random.default_rng(5)
WEIGHT = (RNG.standard_t(4, (7, 384)) * np.exp(RNG.normal(size=(7, 1))) / 20).astype(np.float32)
GRIDS = {"affine": affine_grid, "symmetric": symmetric_grid}


def packed(grid: IntegerGrid, dtype: str = "auto") -> tuple[np.ndarray, np.ndarray, Packing]:
    """Weights that the integers stand for, their words, and how these are to be read."""
    integers, weights = grid.nearest(WEIGHT, np.arange(WEIGHT.shape[1]))
    how = packing_of(grid.step, grid.offset, bits=grid.bits, inputs=384, dtype=dtype)  # type: ignore[arg-type]
    return weights, packed_words(integers, bits=grid.bits), how


@pytest.mark.parametrize("group_size", [32, 64, 96, 128, 192, None])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", GRIDS)
def test_a_grid_survives_packing(kind: str, bits: int, group_size: int | None) -> None:
    """float32 steps: to what rounding of `scale * code + bias` itself may cost."""
    grid = GRIDS[kind](WEIGHT, bits=bits, group_size=group_size)
    weights, words, how = packed(grid)
    assert how.bits == (8 if bits == 7 else bits)
    assert how.group_size == {None: 128, 96: 32, 192: 64}.get(group_size, group_size)
    edge = 2.0**bits * np.abs(grid.step).max(axis=1, keepdims=True)
    assert (np.abs(how.dequantized(words) - weights) <= 2e-7 * edge).all()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", GRIDS)
def test_half_steps_make_half_scales_and_lose_nothing(kind: str, bits: int) -> None:
    grid = GRIDS[kind](WEIGHT, bits=bits, group_size=64, step_dtype="float16")
    weights, words, how = packed(grid)
    assert how.scales.dtype == how.biases.dtype == np.float16
    assert np.array_equal(how.scales.astype(np.float32), grid.step)
    assert np.abs(how.dequantized(words) - weights).max() <= 2e-7 * np.abs(weights).max()
    wide = packed(grid, "float32")[2]
    assert wide.scales.dtype == np.float32
    assert np.array_equal(wide.scales, how.scales)
    size = words.nbytes + how.scales.nbytes + how.biases.nbytes
    assert size == packed_bytes(7, 384, bits=how.bits, group_size=64, half=True)


def test_float32_steps_are_rounded_when_asked_only() -> None:
    grid = symmetric_grid(WEIGHT, bits=4, group_size=64)
    assert packed(grid)[2].scales.dtype == np.float32
    rounded = packed(grid, "float16")[2].scales.astype(np.float32)
    assert np.array_equal(rounded, grid.step.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", GRIDS)
def test_mlx_unpacks_and_multiplies_the_same(kind: str, bits: int) -> None:
    mx = pytest.importorskip("mlx.core")
    weights, words, how = packed(GRIDS[kind](WEIGHT, bits=bits, group_size=128))
    told = {"group_size": how.group_size, "bits": how.bits}
    own = (mx.array(words), mx.array(how.scales), mx.array(how.biases))
    assert np.array_equal(np.array(mx.dequantize(*own, **told)), how.dequantized(words))
    x = RNG.normal(size=(5, 384)).astype(np.float32)
    y = np.array(mx.quantized_matmul(mx.array(x), *own, transpose=True, **told))
    wanted = x.astype(np.float64) @ weights.astype(np.float64).T
    assert np.abs(y - wanted).max() <= 5e-6 * np.abs(wanted).max()


def test_what_mlx_does_not_have_is_refused() -> None:
    for groups, size in ((24, 16), (8, 48), (384, 1)):
        with pytest.raises(LayoutError, match=f"groups of {size} inputs"):
            mlx_group_size(384, groups)
    with pytest.raises(LayoutError, match="groups of 40 inputs"):
        mlx_group_size(40, 1)
    step = np.ones((2, 1), np.float32)
    with pytest.raises(LayoutError, match="1 bits"):
        packing_of(step, None, bits=1, inputs=32)
    with pytest.raises(LayoutError, match="beyond float16"):
        packing_of(step * 1e5, None, bits=4, inputs=32, dtype="float16")
    with pytest.raises(MisuseError, match="bfloat16"):
        packing_of(step, None, bits=4, inputs=32, dtype="bfloat16")  # type: ignore[arg-type]

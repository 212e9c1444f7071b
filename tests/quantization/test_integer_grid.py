"""Grids of integers: loops written out by hand, and MLX's own quantizer, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore import TaqError
from taqstore.quantization.integer_grid import (
    MLX_BITS,
    MLX_GROUPS,
    affine_grid,
    mlx_scales,
    symmetric_grid,
)
from taqstore.quantization.weight_grid import round_to_nearest, weight_steps

RNG = np.random.default_rng(21)
WEIGHT = (RNG.standard_t(4, (40, 384)) * np.exp(RNG.normal(size=(40, 1)))).astype(np.float32)
# Groups of one sign, of zeros, of one value, of two ends that are equal, and next to nothing.
WEIGHT[0], WEIGHT[1], WEIGHT[2] = np.abs(WEIGHT[0]), -np.abs(WEIGHT[1]), 0
WEIGHT[3], WEIGHT[4, ::2], WEIGHT[4, 1::2], WEIGHT[5] = 0.75, 0.25, -0.25, 1e-9
EVERY = np.arange(384)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("group_size", MLX_GROUPS)
@pytest.mark.parametrize("bits", MLX_BITS)
def test_scales_and_biases_are_those_of_mlx(bits: int, group_size: int, dtype: str) -> None:
    mx = pytest.importorskip("mlx.core")
    weight = WEIGHT.astype(dtype)
    packed, scales, biases = mx.quantize(mx.array(weight), group_size=group_size, bits=bits)
    scale, bias = mlx_scales(weight, bits=bits, group_size=group_size)
    np.testing.assert_array_equal(scale.astype(dtype), np.array(scales))
    np.testing.assert_array_equal(bias.astype(dtype), np.array(biases))
    # What MLX makes of its integers is what the grid makes of ours.
    grid = affine_grid(weight, bits=bits, group_size=group_size, step_dtype=dtype)  # type: ignore[arg-type]
    code = _codes(np.array(packed), bits)
    wide = [a.astype(mx.float32) for a in (scales, biases)]
    theirs = np.array(mx.dequantize(packed, *wide, group_size=group_size, bits=bits))
    ours = grid.weights((code - 2 ** (bits - 1)).astype(np.int8))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-7 * np.abs(WEIGHT).max())
    np.testing.assert_array_equal(grid.step, np.array(scales, np.float32))


def _codes(packed: np.ndarray, bits: int) -> np.ndarray:
    """Integers of rows packed lowest bit first."""
    rows = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")
    digits = rows.reshape(len(rows), -1, bits).astype(np.int64)
    return np.asarray(digits @ (1 << np.arange(bits)))


@pytest.mark.parametrize("step_dtype", ["float32", "float16"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_nearest_is_the_best_point_of_the_grid(bits: int, step_dtype: str) -> None:
    for grid in (
        symmetric_grid(WEIGHT, bits=bits, group_size=96, step_dtype=step_dtype),  # type: ignore[arg-type]
        affine_grid(WEIGHT, bits=bits, group_size=96, step_dtype=step_dtype),  # type: ignore[arg-type]
    ):
        columns = np.array([0, 95, 96, 383])
        codes, weights = grid.nearest(WEIGHT[:, columns], columns)
        points = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
        for at, column in enumerate(columns):
            step = grid.step[:, column // 96, None].astype(np.float64)
            offset = 0 if grid.offset is None else grid.offset[:, column // 96, None]
            lost = np.abs(points * step + offset - WEIGHT[:, column, None])
            here = np.abs(weights[:, at] - WEIGHT[:, column])
            np.testing.assert_allclose(here, lost.min(axis=1), atol=1e-6 * np.abs(WEIGHT).max())
        whole = grid.nearest(WEIGHT, EVERY)
        np.testing.assert_array_equal(codes, whole[0][:, columns])
        np.testing.assert_array_equal(grid.weights(whole[0]), whole[1])
        assert codes.dtype == np.int8
        assert weights.dtype == np.float32


def test_a_symmetric_grid_has_the_steps_of_adaround() -> None:
    for group_size in (None, 64):
        steps = weight_steps(WEIGHT, bits=4, group_size=group_size, clip="mse")
        grid = symmetric_grid(WEIGHT, bits=4, group_size=group_size, clip="mse")
        np.testing.assert_array_equal(grid.step, steps)
        nearest = round_to_nearest(WEIGHT, steps, bits=4)
        np.testing.assert_array_equal(grid.nearest(WEIGHT, EVERY)[0], nearest)


def test_steps_are_rounded_before_the_integers_are_made() -> None:
    half = symmetric_grid(WEIGHT, bits=4, group_size=64, step_dtype="float16")
    wide = symmetric_grid(WEIGHT, bits=4, group_size=64)
    np.testing.assert_array_equal(half.step[:5], wide.step[:5].astype(np.float16))
    assert (half.step > 0).all()  # also where a half would be 0
    affine = affine_grid(WEIGHT, bits=4, group_size=64, step_dtype="float16")
    assert affine.offset is not None
    bias = affine.offset - 8 * affine.step
    _, expected = mlx_scales(WEIGHT, bits=4, group_size=64)
    np.testing.assert_array_equal(bias.astype(np.float16), expected.astype(np.float16))
    np.testing.assert_array_equal(bias, bias.astype(np.float16))
    assert (affine.step != 0).all()


def test_importance_chooses_clip_bounds() -> None:
    """Least squared error of the inputs that count, tried share by share."""
    weight = WEIGHT[6:12, :12]
    counts = np.exp(RNG.normal(size=12) * 2)
    steps = weight_steps(weight, bits=3, group_size=6, clip="mse", importance=counts)
    for row in range(6):
        for group in range(2):
            at = slice(group * 6, group * 6 + 6)
            values = weight[row, at].astype(np.float64)
            tried = np.abs(values).max() * (1 - 0.01 * np.arange(81)) / 3

            def lost(step: float, values: np.ndarray = values, at: slice = at) -> float:
                rounded = np.clip(np.rint(values / step), -4, 3) * step
                return float(counts[at] @ (rounded - values) ** 2)

            assert lost(float(steps[row, group])) <= min(map(lost, tried)) * (1 + 1e-5)
    plain = weight_steps(weight, bits=3, group_size=6, clip="mse")
    assert (steps != plain).any()
    none = weight_steps(weight, bits=3, group_size=6, clip="mse", importance=np.zeros(12))
    np.testing.assert_array_equal(none, weight_steps(weight, bits=3, group_size=6, clip="absmax"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TaqError, match="do not divide 384 inputs"):
        affine_grid(WEIGHT, group_size=100)
    with pytest.raises(TaqError, match="2 to 8 bits"):
        mlx_scales(WEIGHT, bits=9)
    with pytest.raises(TaqError, match="beyond float16"):
        affine_grid(WEIGHT * 1e6, step_dtype="float16")
    with pytest.raises(TaqError, match="did you mean float16"):
        symmetric_grid(WEIGHT, step_dtype="float64")  # type: ignore[arg-type]

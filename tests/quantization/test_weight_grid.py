"""Weight grids against loops written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore import TaqError
from taqstore.quantization.weight_grid import (
    dequantized,
    round_to_nearest,
    weight_groups,
    weight_steps,
)

RNG = np.random.default_rng(11)
WEIGHT = (RNG.standard_t(4, (5, 12)) * np.exp(RNG.normal(size=(5, 1)))).astype(np.float32)


@pytest.mark.parametrize("group_size", [None, 12, 4, 1])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_steps_and_integers_of_every_group(bits: int, group_size: int | None) -> None:
    steps = weight_steps(WEIGHT, bits=bits, group_size=group_size, clip="absmax")
    integers = round_to_nearest(WEIGHT, steps, bits=bits)
    size, qmax = group_size or 12, 2 ** (bits - 1) - 1
    assert steps.dtype == np.float32
    assert steps.shape == (5, 12 // size)
    assert integers.dtype == np.int8
    for row in range(5):
        for column in range(12):
            group = WEIGHT[row, column // size * size : (column // size + 1) * size]
            step = np.float32(np.abs(group).max() / np.float32(qmax))
            assert steps[row, column // size] == step
            nearest = np.clip(np.rint(WEIGHT[row, column] / step), -qmax - 1, qmax)
            assert integers[row, column] == nearest
            assert dequantized(integers, steps)[row, column] == np.float32(nearest) * step


def test_mse_clip_is_the_best_of_81_shares() -> None:
    steps = weight_steps(WEIGHT, bits=3, group_size=6, clip="mse")
    for row in range(5):
        for group in range(2):
            values = WEIGHT[row, group * 6 : group * 6 + 6].astype(np.float64)
            tried = [np.abs(values).max() * (1 - 0.01 * i) / 3 for i in range(81)]
            error = [np.sum((np.clip(np.rint(values / s), -4, 3) * s - values) ** 2) for s in tried]
            kept = float(steps[row, group])
            at_kept = np.sum((np.clip(np.rint(values / kept), -4, 3) * kept - values) ** 2)
            assert at_kept <= min(error) * (1 + 1e-5)
            assert min(abs(kept / np.array(tried) - 1)) < 1e-6


def test_a_large_weight_is_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weight_steps(WEIGHT, clip="mse")
    monkeypatch.setattr("taqstore.quantization.weight_grid.SEARCHED_AT_ONCE", 24)
    np.testing.assert_array_equal(weight_steps(WEIGHT, clip="mse"), whole)


def test_a_channel_of_zeros_has_a_step_and_stays_zero() -> None:
    weight = np.zeros((2, 4), np.float16)
    for clip in ("absmax", "mse"):
        steps = weight_steps(weight, clip=clip)  # type: ignore[arg-type]
        assert steps.tolist() == [[1.0], [1.0]]
        assert not round_to_nearest(weight, steps).any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TaqError, match="do not divide 12 inputs"):
        weight_groups(12, 5)
    with pytest.raises(TaqError, match="2 to 8 bits"):
        weight_steps(WEIGHT, bits=9, clip="absmax")
    with pytest.raises(TaqError, match="there is absmax, mse"):
        weight_steps(WEIGHT, clip="p99")  # type: ignore[arg-type]

"""Soft rounding against closed forms in float64, and its gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.quantized.activation import fake_quantizer, keep_some
from taqstore.pipelines.models.rounding import Settings
from taqstore.pipelines.models.rounding.soft import (
    initial,
    rounding_loss,
    rounding_slope,
    sigmoid,
    slope,
    soften,
    stretched,
    unsettled,
)

from support.live_capture import needs_models
from taqstore import TaqError
from taqstore.quantization.quantizer import integer_range
from taqstore.quantization.weight_grid import dequantized, weight_steps

pytestmark = needs_models
RNG = np.random.default_rng(3)
V = np.concatenate([RNG.normal(0, 2, 200), [-40, -3, 0, 3, 40]])


def h(v: np.ndarray) -> np.ndarray:
    """The rectified sigmoid in float64."""
    return np.clip(1.2 / (1 + np.exp(-v)) - 0.1, 0, 1)


def differences(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    return (function(x + 1e-6) - function(x - 1e-6)) / 2e-6


def mlx(values: np.ndarray) -> object:
    return backend().mx.array(values.astype(np.float32))


def test_rectified_sigmoid_and_its_slope() -> None:
    np.testing.assert_allclose(np.array(stretched(sigmoid(mlx(V)))), h(V), atol=1e-6)
    np.testing.assert_allclose(np.array(slope(sigmoid(mlx(V)))), differences(h, V), atol=1e-6)


def test_initial_v_gives_the_fraction_back() -> None:
    fraction = np.linspace(0, 1, 101)
    v, inner = np.array(initial(mlx(fraction))), fraction[1:-1]
    expected = -np.log(1.2 / (inner + 0.1) - 1)
    np.testing.assert_allclose(v[1:-1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h(v.astype(np.float64)), fraction, atol=2e-6)


@pytest.mark.parametrize("beta", [20.0, 7.3, 2.0])
def test_regulariser_and_its_gradient(beta: float) -> None:
    def term(v: np.ndarray) -> np.ndarray:
        return 1 - np.abs(2 * h(v) - 1) ** beta

    np.testing.assert_allclose(rounding_loss(mlx(V), beta).item(), term(V).sum(), rtol=1e-5)
    s = sigmoid(mlx(V))
    gradient = np.array(rounding_slope(s, beta) * slope(s))
    np.testing.assert_allclose(gradient, differences(term, V), atol=2e-5 * beta)


def test_schedule() -> None:
    settings = Settings(iterations=1000, warmup=0.2, beta=(20.0, 2.0))
    assert [settings.beta_at(i) for i in (0, 199)] == [None, None]
    assert settings.beta_at(200) == 20.0
    assert settings.beta_at(600) == 11.0
    assert settings.beta_at(999) == pytest.approx(2 + 18 / 800, rel=1e-12)
    assert Settings(iterations=1, warmup=0.0).beta_at(0) == 20.0


@pytest.mark.parametrize(("group_size", "clip"), [(None, "absmax"), (4, "absmax"), (6, "mse")])
def test_soft_weight_starts_at_the_weight_and_ends_on_the_grid(group_size: int, clip: str) -> None:
    mx = backend().mx
    weight = RNG.normal(size=(7, 12)).astype(np.float32)
    steps = weight_steps(weight, bits=4, group_size=group_size, clip=clip)  # type: ignore[arg-type]
    soft, v = soften(mx.array(weight), mx.array(steps), (-8, 7))
    wide = np.repeat(steps, 12 // steps.shape[1], axis=1)
    clipped = np.clip(weight, -8 * wide, 7 * wide)
    np.testing.assert_allclose(np.array(soft.soft(sigmoid(v))), clipped, atol=3e-6 * wide.max())
    for shaken in (v, v + 3, v - 3, mx.array(RNG.normal(0, 9, v.shape).astype(np.float32))):
        # V of a weight beyond the grid is never moved: its gradient is 0.
        moved = mx.where(slope(sigmoid(v)) > 0, shaken, v)
        integers = np.array(soft.hard(moved))
        assert integers.dtype == np.int8
        assert integers.min() >= -8
        assert integers.max() <= 7
        hard = dequantized(integers, steps)
        assert (np.abs(hard - clipped) <= wide * (1 + 1e-5)).all()
        up = np.array(moved).reshape(weight.shape) >= 0
        base = np.array(soft.base).reshape(weight.shape)
        np.testing.assert_array_equal(integers, base + up)


def test_a_weight_beyond_the_grid_stays_at_its_end() -> None:
    mx = backend().mx
    weight, steps = np.float32([[-9.4, -8.0, 6.99, 7.0, 9.9]]), np.float32([[1.0]])
    soft, v = soften(mx.array(weight), mx.array(steps), (-8, 7))
    np.testing.assert_allclose(np.array(soft.soft(sigmoid(v)))[0], [-8, -8, 6.99, 7, 7], atol=1e-5)
    ones = mx.ones(weight.shape)
    np.testing.assert_array_equal(np.array(soft.gradient(sigmoid(v), ones))[0, 0, [0, 3, 4]], 0)
    assert np.array(soft.gradient(sigmoid(v), ones))[0, 0, 2] > 0
    assert np.array(soft.hard(v)).tolist() == [[-8, -8, 7, 7, 7]]


def test_unsettled_counts_what_is_between() -> None:
    assert unsettled(mlx(np.array([-9.0, 0.0, 1.0, 9.0]))).item() == 2


def test_fake_quantization_rounds_half_to_even_and_clips() -> None:
    x = np.float32([-9, -4.2, -0.5, 0.5, 1.5, 2.5, 3.4, 9]).reshape(1, -1, 1, 1)
    step = np.ones((1, 1, 1, 1), np.float32)
    found = np.array(fake_quantizer(-4, 3)(backend().mx.array(x), backend().mx.array(step)))
    assert found.ravel().tolist() == [-4, -4, 0, 0, 2, 2, 3, 3]


def test_activation_gradients_are_those_of_the_surrogate_with_rounding_held() -> None:
    """Central differences in float64 of the quantizer whose rounding residual is a constant."""
    mx = backend().mx
    x = RNG.normal(0, 3, (3, 5, 1, 4)).astype(np.float32).astype(np.float64)
    step = np.array([0.3, 0.7, 1.9]).astype(np.float32).astype(np.float64).reshape(3, 1, 1, 1)
    pull = RNG.normal(size=x.shape)
    held = np.rint(x / step) - x / step

    def surrogate(x: np.ndarray, step: np.ndarray) -> np.ndarray:
        level = x / step
        inside = (level >= -4) & (level <= 3)
        return np.where(inside, level + held, np.clip(level, -4, 3)) * step * pull

    def loss(x: object, step: object) -> object:
        return (fake_quantizer(-4, 3)(x, step) * mlx(pull)).sum()

    of_x, of_step = (np.array(g) for g in mx.grad(loss, argnums=(0, 1))(mlx(x), mlx(step)))
    np.testing.assert_allclose(of_x, differences(lambda x: surrogate(x, step), x), atol=1e-5)
    expected = differences(lambda s: surrogate(x, s).sum(axis=(1, 2, 3), keepdims=True), step)
    np.testing.assert_allclose(of_step, expected, rtol=1e-4, atol=1e-5)


def test_qdrop_keeps_a_share_of_the_elements_and_its_key_decides_which() -> None:
    mx = backend().mx
    x, quantized = mx.ones((2, 50, 1, 40)), mx.zeros((2, 50, 1, 40))
    first = np.array(keep_some(x, quantized, share=0.25, key=mx.random.key(1)))
    again = np.array(keep_some(x, quantized, share=0.25, key=mx.random.key(1)))
    np.testing.assert_array_equal(first, again)
    assert abs(first.mean() - 0.25) < 0.03  # four standard deviations


@pytest.mark.parametrize(
    "wrong", [{"bits": 1}, {"bits": 9}, {"activation_bits": 1}, {"iterations": 0},
              {"batch_size": 0}, {"qdrop": 1.0}, {"warmup": -0.1}, {"patience": -1},
              {"beta": (2.0, 1.5)}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TaqError):
        Settings(**wrong)  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 16), spread=st.floats(1e-3, 1e5))
@settings(max_examples=25, deadline=None)
def test_fake_quantization_and_its_gradients_are_those_of_the_formulas(
    seed: int, bits: int, spread: float
) -> None:
    mx, (qmin, qmax) = backend().mx, integer_range(bits)
    rng = np.random.default_rng(seed)
    x = rng.normal(0, spread, (3, 5, 1, 7)).astype(np.float32)
    step = rng.uniform(0.01, 2, (3, 1, 1, 1)).astype(np.float32)
    x[0, 0, 0] = step[0, 0, 0] * np.float32([0.5, 1.5, 2.5, -0.5, qmin, qmax, 0])
    pull = rng.normal(size=x.shape).astype(np.float32)
    function = fake_quantizer(qmin, qmax)
    outputs, slopes = mx.vjp(function, [mx.array(x), mx.array(step)], [mx.array(pull)])
    expected = np.clip(np.rint(x / step), qmin, qmax) * step
    np.testing.assert_array_equal(np.array(outputs[0]), expected)
    inside = (x >= step * np.float32(qmin)) & (x <= step * np.float32(qmax))
    np.testing.assert_array_equal(np.array(slopes[0]), pull * inside)
    each = pull.astype(np.float64) * (expected.astype(np.float64) - x * inside)
    bound = 1e-5 * np.abs(each).sum(axis=(1, 2, 3)) / step.ravel()
    error = np.abs(np.array(slopes[1]).ravel() - each.sum(axis=(1, 2, 3)) / step.ravel())
    assert (error <= bound + 1e-12).all()

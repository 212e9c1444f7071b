"""Replays of order-dependent rules: bit-equal to scalar loops and to results of other tools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support import oracle
from taqstore.errors import TaqError
from taqstore.statistics import moving_average as replay

f32 = np.float32
quick = settings(max_examples=80, deadline=None)
extrema = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 3)),
    elements=st.floats(-1000, 1000, width=32),
)
fractions = st.floats(0, 1, width=32)


def by_channel(values: np.ndarray, rule: object) -> list[np.float32]:
    return [rule([f32(v) for v in column]) for column in values.T]  # type: ignore[operator]


@quick
@given(extrema)
def test_running_mean_is_the_scalar_loop(values: np.ndarray) -> None:
    def rule(column: list[np.float32]) -> np.float32:
        average = column[0]
        for n in range(1, len(column)):
            average = f32(average + f32(f32(column[n] - average) / f32(n + 1)))
        return average

    found = replay.running_mean_float32(values)
    assert found.dtype == np.float32
    assert found.tolist() == by_channel(values, rule)
    assert found == pytest.approx(values.mean(axis=0, dtype=float), rel=1e-5, abs=1e-3)


@quick
@given(extrema, fractions)
def test_moving_average_is_the_scalar_loop(values: np.ndarray, constant: float) -> None:
    def rule(column: list[np.float32]) -> np.float32:
        average = column[0]
        for value in column[1:]:
            average = f32(average + f32(f32(constant) * f32(value - average)))
        return average

    found = replay.ema_float32(values, constant)
    assert found.dtype == np.float32
    assert found.tolist() == by_channel(values, rule)


@quick
@given(extrema)
def test_midpoint_shift_is_the_scalar_loop(values: np.ndarray) -> None:
    spread = np.abs(values[::-1]) + f32(0.1)

    def rule(column: list[np.float32]) -> np.float32:
        shift = column[0]
        for value in column[1:]:
            shift = f32(f32(f32(0.95) * shift) + f32(f32(1 - 0.95) * value))
        return shift

    midpoint = np.array(
        [
            [f32(f32(f32(v - s) + f32(v + s)) / f32(2)) for v, s in zip(a, b, strict=True)]
            for a, b in zip(values, spread, strict=True)
        ]
    )
    found = replay.ema_midpoint(values - spread, values + spread)
    assert found.dtype == np.float32
    assert found.tolist() == by_channel(midpoint, rule)


@quick
@given(extrema, fractions)
def test_weighted_sum_is_the_float64_average(values: np.ndarray, momentum: float) -> None:
    weights = replay.ema_weights(len(values), momentum)
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    found = replay.ema_midpoint(values, values, momentum=momentum, dtype=np.float64)
    assert found.dtype == np.float64
    closed = weights @ values.astype(np.float64)
    assert found == pytest.approx(closed, rel=1e-12, abs=1e-11)


def test_weights_in_closed_form() -> None:
    assert replay.ema_weights(1).tolist() == [1.0]
    assert replay.ema_weights(3, 0.5).tolist() == [0.25, 0.25, 0.5]
    assert replay.ema_weights(4, 0.0).tolist() == [0, 0, 0, 1]
    assert replay.ema_weights(4, 1.0).tolist() == [1, 0, 0, 0]


def test_replays_leave_their_input_alone_and_widen_halves() -> None:
    halves = np.array([[1, 2], [3, 5], [4, -1]], np.float16)
    kept = halves.copy()
    for found in (
        replay.running_mean_float32(halves),
        replay.ema_float32(halves, 0.5),
        replay.ema_midpoint(halves, halves),
    ):
        assert found.dtype == np.float32
        found += 1
    assert np.array_equal(halves, kept)
    single = np.ones((1, 2), np.float32)
    replay.ema_float32(single)[:] = 7
    assert single.tolist() == [[1, 1]]
    assert replay.ema_float32([1.0, 2.0], 0.5).shape == ()


def test_a_missing_batch_is_not_passed_over() -> None:
    values = np.array([1, np.nan, 3], np.float32)
    assert np.isnan(replay.running_mean_float32(values))
    assert np.isnan(replay.ema_float32(values))
    assert np.isnan(replay.ema_midpoint(values, values))


def test_misuse_is_refused() -> None:
    for empty in (np.zeros((0, 3)), np.float32(1)):
        with pytest.raises(TaqError, match="at least one batch on axis 0"):
            replay.running_mean_float32(empty)
    with pytest.raises(TaqError, match="at least one batch"):
        replay.ema_weights(0)
    with pytest.raises(TaqError, match=r"averaging_constant must lie between 0 and 1 .found 1.5"):
        replay.ema_float32(np.ones(3), 1.5)
    with pytest.raises(TaqError, match="momentum must lie"):
        replay.ema_weights(3, float("nan"))


def test_frozen_torch_moving_average() -> None:
    """MovingAverageMinMaxObserver(averaging_constant=0.05), whole and per channel: bit-equal."""
    x = oracle.tensor()
    assert replay.ema_float32(x.min(axis=(1, 2)), 0.05) == f32(-46.6011505)
    assert replay.ema_float32(x.max(axis=(1, 2)), 0.05) == f32(55.1260757)
    low = replay.ema_float32(x.min(axis=1), 0.05)[:4]
    high = replay.ema_float32(x.max(axis=1), 0.05)[:4]
    assert low.tolist() == f32([-31.081254959, -4.311739445, -2.196311474, -2.942892313]).tolist()
    assert high.tolist() == f32([30.163869858, 6.647480488, 0.275846571, 7.125765324]).tolist()


def test_frozen_midpoint_shift() -> None:
    x = oracle.tensor()
    low, high = x.min(axis=1), x.max(axis=1)
    frozen = [-0.458691569, 1.167870571, -0.960232405, 2.091436702]
    found = replay.ema_midpoint(low, high, dtype=np.float64)[:4]
    assert found == pytest.approx(frozen, rel=0, abs=5e-10)
    assert replay.ema_midpoint(low, high)[:4] == pytest.approx(frozen, rel=1e-6)


def test_frozen_nncf_mean_of_extrema() -> None:
    x = oracle.tensor()
    float32_rounding = 4 * float(np.finfo(np.float32).eps)
    found = [
        replay.running_mean_float32(values)
        for values in (
            x.min(axis=1)[:, 0],
            x.max(axis=1)[:, 0],
            x.min(axis=(1, 2)),
            x.max(axis=(1, 2)),
        )
    ]
    frozen = [-35.7156715, 37.3655930, -59.5976334, 67.5343630]
    assert found == pytest.approx(frozen, rel=float32_rounding)

"""Intervals of means, beside a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taqstore.trajectory.bootstrap import bootstrap, paired_difference


def plain(values: list[float], *, draws: int, level: float, seed: int) -> tuple[float, ...]:
    """Mean and interval by loops; the draws are those of NumPy's generator, one at a time."""
    rng, count, means = np.random.default_rng(seed), len(values), []
    for _ in range(draws):
        drawn = [int(rng.integers(count)) for _ in range(count)]
        means.append(math.fsum(values[i] for i in drawn) / count)
    means.sort()
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * (draws - 1)
        low = math.floor(place)
        high = min(low + 1, draws - 1)
        ends.append(means[low] + (means[high] - means[low]) * (place - low))
    return (math.fsum(values) / count, *ends)


@pytest.mark.parametrize(("count", "draws", "level"), [(7, 500, 0.95), (2, 300, 0.8), (1, 50, 0.9)])
def test_the_interval_is_that_of_a_loop(count: int, draws: int, level: float) -> None:
    values = np.random.default_rng(count).normal(size=count)
    found = bootstrap(values, draws=draws, level=level, seed=11)
    expected = plain(values.tolist(), draws=draws, level=level, seed=11)
    assert [float(end) for end in found] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_columns_are_paired_and_each_is_its_own_interval() -> None:
    table = np.random.default_rng(5).normal(size=(9, 4))
    whole = bootstrap(table, draws=400)
    assert whole.mean.shape == (4,)
    for column in range(4):
        alone = bootstrap(table[:, column], draws=400)
        assert [end[column] for end in whole] == pytest.approx([*map(float, alone)], rel=1e-13)


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(8)
    base = rng.normal(scale=10, size=25)
    better = base + 0.1 + 0.01 * rng.normal(size=25)
    found = paired_difference(better, base)
    assert found.excludes_zero
    assert 0.08 < found.lower < found.mean < found.upper < 0.12
    assert not paired_difference(base, rng.permutation(base)).excludes_zero


def test_values_that_are_no_numbers() -> None:
    assert all(np.isnan(end) for end in bootstrap([1.0, np.nan, 2.0], draws=20))
    assert all(np.isnan(end) for end in bootstrap([], draws=20))
    assert all(np.isposinf(end) for end in bootstrap([np.inf] * 3, draws=20))
    same = paired_difference([np.inf, 3.0], [np.inf, 3.0], draws=20)
    assert not same.excludes_zero
    assert same.mean == 0


def test_the_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(size=25)
        found = bootstrap(values, draws=400, seed=seed)
        held += bool(found.lower <= 0 <= found.upper)
    assert 0.88 <= held / 200 <= 0.98

"""Spearman's rho is scipy's, ties and all; its interval that of a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from taqstore.statistics.rank_correlation import average_ranks, rank_correlation, spearman


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_ranks_are_those_of_scipy(values: list[int]) -> None:
    np.testing.assert_array_equal(average_ranks(values), rankdata(values))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_rho_is_that_of_scipy_for_many_rows_at_once(levels: int) -> None:
    rng = np.random.default_rng(levels)
    a, b = rng.integers(levels, size=(2, 17, 89)).astype(float)
    b += a * rng.normal(size=(17, 1))
    a[0, :3] = np.inf, -np.inf, np.inf
    wanted = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), wanted, rtol=1e-13, atol=1e-15)


def test_what_does_not_vary_has_no_rho() -> None:
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3])).all()
    assert np.isnan(rank_correlation([1, 2], [1, 2])).all()


def test_the_interval_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=23).round(1)
    b = a + rng.normal(size=23)
    found = rank_correlation(a, b, draws=400, level=0.9, seed=7)
    again = np.random.default_rng(7).integers(23, size=(400, 23))
    means = sorted(spearmanr(a[row], b[row]).statistic for row in again)
    assert found.rho == pytest.approx(spearmanr(a, b).statistic, rel=1e-13)
    np.testing.assert_allclose(found[1:], np.quantile(means, [0.05, 0.95]), rtol=1e-12)
    assert rank_correlation(a, a).lower == pytest.approx(1)

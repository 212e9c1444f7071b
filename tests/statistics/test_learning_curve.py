"""Moves between nested subsets, against plain loops; predicted moves of samples of known laws."""

from __future__ import annotations

from itertools import combinations
from math import inf, log, sqrt

import numpy as np
import pytest

from taqstore.statistics.learning_curve import Moves, Subsets

CELLS = 400


def answers(values: np.ndarray, subsets: Subsets, reduce: str) -> np.ndarray:
    """Logarithms (subset, cell) of the mean or maximum of values (item, cell), by a loop."""
    return np.log([getattr(values[row], reduce)(axis=0) for row in subsets.members])


@pytest.mark.parametrize("items", [4, 7, 12, 16])
def test_subsets_are_nested_runs_and_none_is_there_twice(items: int) -> None:
    subsets = Subsets.of(items, orders=3, seed=1)
    assert len({row.tobytes() for row in subsets.members[:-1]}) == len(subsets.members) - 1
    assert subsets.members[-1].all()
    for size in (1, 2, 4, 8):
        if size > items:
            continue
        for runs in subsets.orders:
            taken = subsets.members[list(runs[size])]
            assert (taken.sum(axis=1) == size).all()
            assert taken.sum(axis=0).max() == 1
            assert len(taken) == items // size
        for factor in (2, 4):
            found = {tuple(pair) for pair in subsets.pairs(size, factor).tolist()}
            rows, sizes = subsets.members, subsets.sizes
            assert len(found) <= 3 * (items // (size * factor)) * factor
            for part, whole in found:
                assert (rows[part] <= rows[whole]).all()
                assert (sizes[part], sizes[whole]) == (size, factor * size)
    again = Subsets.of(items, orders=3, seed=1)
    assert (again.members == subsets.members).all()


def test_moves_are_those_of_a_loop() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=(8, 5)))
    subsets = Subsets.of(8, orders=2, seed=0)
    found = Moves(answers(values, subsets, "max"), subsets)
    for size, factor in ((1, 2), (2, 2), (1, 4), (2, 4)):
        squares = []
        for part, whole in subsets.pairs(size, factor).tolist():
            small, large = (values[subsets.members[i]].max(axis=0) for i in (part, whole))
            squares += [log(b / a) ** 2 for a, b in zip(small, large, strict=True)]
        assert found.moved(size, factor) == pytest.approx(sqrt(np.mean(squares)), rel=1e-12)
    away = [
        sqrt(np.mean([log(a / b) ** 2 for a, b in zip(values[row].max(axis=0), values.max(axis=0),
                                                     strict=True)]))
        for row in subsets.members
        if row.sum() == 2
    ]  # fmt: skip
    np.testing.assert_allclose(found.deviation(2), away, rtol=1e-12)


def test_moves_of_a_mean_are_unbiased_over_all_subsets() -> None:
    """Over every nested pair of a sample: var (1/n - 1/4n), with the sample's own variance."""
    values = np.random.default_rng(1).normal(size=8)
    squares = [
        (values[list(small)].mean() - values[list(large)].mean()) ** 2
        for large in combinations(range(8), 8)
        for small in combinations(large, 2)
    ]
    assert np.mean(squares) == pytest.approx(values.var(ddof=1) * (1 / 2 - 1 / 8))


@pytest.mark.parametrize("items", [8, 16, 32])
def test_four_times_a_mean_is_predicted_within_a_tenth(items: int) -> None:
    """Of averages the move is known: spread sqrt(3 / (4 n)) of the items' own."""
    rng, spread = np.random.default_rng(2), 0.1
    truth, found = spread * sqrt(3 / (4 * items)), []
    for seed in range(20):
        values = 1 + spread * rng.normal(size=(items, CELLS))
        subsets = Subsets.of(items, orders=4, seed=seed)
        moves = Moves(answers(values, subsets, "mean"), subsets)
        found.append(moves.expected(items))
        assert moves.power[0] == pytest.approx(0.5, abs=0.05)
    assert np.mean(found) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("items", [8, 32])
def test_four_times_an_extremum_is_predicted_within_a_tenth(items: int) -> None:
    """Maxima of exponential tails: measured against fresh samples, mean over 20 of them."""
    rng, predicted, measured, inside = np.random.default_rng(3), [], [], 0
    for seed in range(20):
        values = 5 + rng.exponential(size=(4 * items, CELLS))
        subsets = Subsets.of(items, orders=4, seed=seed)
        moves = Moves(answers(values[:items], subsets, "max"), subsets)
        grown = np.log(values.max(axis=0) / values[:items].max(axis=0))
        predicted.append(moves.expected(items))
        measured.append(float(np.sqrt(np.square(grown).mean())))
        low, high = moves.interval(items)
        inside += low <= measured[-1] <= high
    assert np.mean(predicted) == pytest.approx(np.mean(measured), rel=0.1)
    assert inside >= 15


def test_enough_is_where_the_expected_move_is_small() -> None:
    values = 1 + 0.1 * np.random.default_rng(4).normal(size=(16, CELLS))
    subsets = Subsets.of(16, orders=4, seed=0)
    moves = Moves(answers(values, subsets, "mean"), subsets)
    for tolerance in (0.05, 0.02, 0.005):
        number = moves.enough(tolerance)
        assert moves.expected(number) < tolerance * (1 + 1e-9)
        assert moves.expected(number - 1) >= tolerance
        assert abs(number - (0.1 * sqrt(3 / 4) / tolerance) ** 2) < 1 + 0.3 * number
    assert moves.enough(0.5) == 1
    assert moves.enough(1e-12) == inf


def test_answers_that_never_move_are_enough() -> None:
    subsets = Subsets.of(8, orders=2, seed=0)
    moves = Moves(np.zeros((len(subsets.members), 3)), subsets)
    assert (moves.expected(8), moves.interval(8), moves.enough(0.01)) == (0.0, (0.0, 0.0), 1.0)

"""Contiguous groups and allocations: against exhaustive search."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore.errors import TaqError
from taqstore.quantization.allocation import allocate
from taqstore.quantization.partition import bucketed, clustered, optimal, total_cost


def all_partitions(n: int, groups: int) -> list[list[tuple[int, int]]]:
    cuts = combinations(range(1, n), groups - 1)
    return [[(a, b - 1) for a, b in pairwise((0, *cut, n))] for cut in cuts]


def spans(partition: np.ndarray) -> list[tuple[int, int]]:
    labels = partition.tolist()
    assert labels == sorted(labels)
    return [(labels.index(g), len(labels) - 1 - labels[::-1].index(g)) for g in sorted(set(labels))]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_dynamic_programming_equals_exhaustive_search(n: int, seed: int) -> None:
    cost = np.random.default_rng(seed).integers(0, 50, (2, n, n)).astype(float)
    total, partition = optimal(cost)
    for row in range(2):
        for groups in range(1, n + 1):
            found = spans(partition[row, groups - 1])
            assert len(found) == groups
            least = min(sum(cost[row][s] for s in p) for p in all_partitions(n, groups))
            assert total[row, groups - 1] == least == sum(cost[row][s] for s in found)
    np.testing.assert_array_equal(total_cost(cost, partition), total)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10**6))
def test_best_groups_are_never_worse_than_the_heuristics_and_more_never_worse(
    n: int, seed: int
) -> None:
    """Costs as they arise: least over candidates of sums over positions."""
    rng = np.random.default_rng(seed)
    errors = np.cumsum(rng.exponential(size=(3, n + 1, 6)), axis=1)
    cost = np.array(
        [[[(e[j + 1] - e[i]).min() for j in range(n)] for i in range(n)] for e in errors]
    )
    total, _ = optimal(cost)
    merged = total_cost(cost, clustered(rng.normal(size=(3, n, 2))))
    assert (total <= merged * (1 + 1e-12)).all()
    assert (np.diff(total) <= 1e-12 * total[:, :1]).all()
    bucket = bucketed(np.linspace(1, 0, n), (0.3, 0.7))
    assert (total[:, bucket.max()] <= total_cost(cost, bucket) * (1 + 1e-12)).all()


def test_neighbours_merge_by_ward() -> None:
    """Against sums of squares worked out afresh at every merge."""
    features = np.random.default_rng(4).normal(size=(2, 9, 3)).cumsum(axis=1)
    got = clustered(features)
    for row in range(2):
        parts = [[i] for i in range(9)]
        while True:
            assert spans(got[row, len(parts) - 1]) == [(p[0], p[-1]) for p in parts]
            if len(parts) == 1:
                break
            spread = [
                deviation(features[row], a + b)
                - deviation(features[row], a)
                - deviation(features[row], b)
                for a, b in pairwise(parts)
            ]
            left = int(np.argmin(spread))
            parts[left : left + 2] = [parts[left] + parts[left + 1]]


def deviation(features: np.ndarray, members: list[int]) -> float:
    chosen = features[members]
    return float(np.square(chosen - chosen.mean(axis=0)).sum())


def test_buckets() -> None:
    sigma = np.array([1.0, 0.7, 0.69, 0.3, 0.29, 0.0])
    assert bucketed(sigma, (0.3, 0.7)).tolist() == [0, 0, 1, 1, 2, 2]
    assert bucketed(sigma[::-1], (0.7, 0.3)).tolist() == [0, 0, 1, 1, 2, 2]
    assert bucketed(sigma[3:], (0.3, 0.7)).tolist() == [0, 1, 1]


def test_unknown_costs_stay_unknown() -> None:
    cost = np.zeros((2, 3, 3))
    cost[1] = np.nan
    total, _ = optimal(cost)
    assert np.isnan(total[1]).all()
    assert (total[0] == 0).all()


# -- allocation ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.sampled_from([(4, 6, 8), (3, 4, 8), (2, 5), (4,), (2, 3, 4, 8)]),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_allocation_equals_exhaustive_search(
    units: int, sizes: tuple[int, ...], share: float, seed: int
) -> None:
    """Costs are integers, so sums are exact; they need not fall with size, nor be convex."""
    average = sizes[0] + share * (sizes[-1] - sizes[0])
    cost = np.random.default_rng(seed).integers(0, 100, (units, len(sizes))).astype(float)
    chosen = allocate(cost, sizes, average=average)
    options = [
        (sum(cost[i][k] for i, k in enumerate(pick)), sum(sizes[k] for k in pick))
        for pick in product(range(len(sizes)), repeat=units)
    ]
    budget = average * units + 1e-9
    least = min(option for option in options if option[1] <= budget)
    spent = cost[np.arange(units), [sizes.index(size) for size in chosen]].sum()
    assert (spent, chosen.sum()) == least


def test_a_choice_off_the_convex_hull_is_found() -> None:
    """Spending the budget exactly takes 6 bits, which no Lagrangian multiplier picks."""
    cost = np.array([[10.0, 9.0, 1.0], [10.0, 9.0, 1.0]])
    assert sorted(allocate(cost, (4, 6, 8), average=6.0).tolist()) == [4, 8]
    assert sorted(allocate(cost, (4, 6, 8), average=7.0).tolist()) == [6, 8]


def test_units_without_a_cost_take_no_part() -> None:
    cost = np.array([[4.0, 1.0], [np.nan, np.nan], [9.0, 1.0]])
    assert allocate(cost, (4, 8), average=6.0).tolist() == [4, 0, 8]
    assert allocate(np.full((2, 2), np.nan), (4, 8), average=6.0).tolist() == [0, 0]


def test_a_budget_that_cannot_be_met() -> None:
    with pytest.raises(TaqError, match=r"average of 3\.9 bits is less than the smallest.*found 4"):
        allocate(np.zeros((3, 2)), (4, 8), average=3.9)
    with pytest.raises(TaqError, match="too many to decide exactly"):
        allocate(np.zeros((60_000, 2)), (2, 3), average=2.9)


def test_totals_that_tie_but_for_rounding_are_cut_at_the_first_place() -> None:
    """Groups whose best range is the same cost the same wherever they are cut."""
    rng = np.random.default_rng(5)
    errors = rng.uniform(0.1, 1.0, 9)
    places = range(9)
    cost = np.array([[errors[i : j + 1].sum() for j in places] for i in places])
    wanted = optimal(cost)[1]
    assert wanted[2].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2]
    for _ in range(50):
        noisy = cost * (1 + rng.uniform(-1, 1, cost.shape) * 2e-15)
        np.testing.assert_array_equal(optimal(noisy)[1], wanted)
    apart = cost.copy()
    apart[1, 8] *= 1 + 1e-9  # more than rounding
    assert optimal(apart)[1][1].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]

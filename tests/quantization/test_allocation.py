"""Allocations over units of unlike sizes, against every choice there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore.errors import TaqError
from taqstore.quantization.allocation import allocate, allocate_each, allocate_sized


def brute(cost: np.ndarray, size: np.ndarray, budget: int) -> tuple[float, int]:
    """Least total cost within the budget, and the least size that has it."""
    units = range(len(cost))
    totals = [
        (sum(cost[u, c] for u, c in zip(units, choice, strict=True)),
         sum(int(size[u, c]) for u, c in zip(units, choice, strict=True)))
        for choice in product(range(cost.shape[1]), repeat=len(cost))
    ]  # fmt: skip
    return min(total for total in totals if total[1] <= budget)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_every_budget_is_the_best_of_all_choices(
    seed: int, units: int, choices: int, missing: bool
) -> None:
    """Costs are whole numbers, so that sums are exact; sizes come in no order."""
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 40, (units, choices)).astype(np.float64)
    size = rng.integers(1, 30, (units, choices)) * int(rng.integers(1, 4))
    if missing:
        cost[rng.random(cost.shape) < 0.3] = np.inf
        cost[:, 0] = 3.0
    least = int(np.where(np.isfinite(cost), size, 10**9).min(axis=1).sum())
    budgets = [least, least + 1, least + 17, 10_000]
    found = allocate_sized(cost, size, budgets=budgets)
    rows = np.arange(units)
    for budget, picked in zip(budgets, found, strict=True):
        total = (float(cost[rows, picked].sum()), int(size[rows, picked].sum()))
        assert total == brute(cost, size, budget)


def test_units_alike_are_what_allocate_has() -> None:
    rng = np.random.default_rng(5)
    cost = np.sort(rng.random((7, 3)), axis=1)[:, ::-1]
    for average in (4.0, 5.0, 5.7, 8.0):
        size = np.tile([4, 6, 8], (7, 1)) * 640
        budget = int(average * 7 * 640 + 1e-9)
        picked = allocate_sized(cost, size, budgets=[budget])[0]
        assert (
            np.array([4, 6, 8])[picked].tolist()
            == allocate(cost, (4, 6, 8), average=average).tolist()
        )


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), units=st.integers(0, 12), some=st.booleans())
def test_averages_of_one_table_are_those_of_a_table_each(seed: int, units: int, some: bool) -> None:
    draw = np.random.default_rng(seed)
    cost = draw.integers(0, 6, (units, 3)).astype(float)  # ties are many
    cost[draw.random(units) < 0.2 * some, 1] = np.nan
    averages = [4.0, *draw.uniform(4, 9, 5), 5.6]
    each = allocate_each(cost, (4, 6, 8), averages=averages)
    for average, chosen in zip(averages, each, strict=True):
        assert chosen.tolist() == allocate(cost, (4, 6, 8), average=average).tolist()


def test_what_cannot_be_allocated_is_told() -> None:
    with pytest.raises(TaqError, match="less than the smallest choices"):
        allocate_sized([[1.0, 0.0]], [[4, 8]], budgets=[8, 3])
    with pytest.raises(TaqError, match="cost of unit 1 is not known"):
        allocate_sized([[1.0], [np.nan]], [[4], [4]], budgets=[8])
    with pytest.raises(TaqError, match="too many to decide"):
        allocate_sized([[1.0, 0.5, 0.0]], [[1, 2, 1 << 31]], budgets=[1 << 40])
    with pytest.raises(TaqError, match="smallest choices"):
        allocate_sized([[np.inf, np.inf]], [[1, 2]], budgets=[5])

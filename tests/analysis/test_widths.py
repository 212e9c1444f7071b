"""A budget that asks for a choice, what it is compared with, and its answer in words."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from support.derived_inputs import two_sites
from taqstore.analysis import joint_bits
from taqstore.analysis.bits import PerUnit
from taqstore.analysis.shared.widths import by_lot, halfway, in_words, why_alike

WIDTHS = range(2, 10)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_no_width_meets_the_budget_by_itself(count: int) -> None:
    for choices in combinations(WIDTHS, count):
        budget = halfway(choices[::-1])
        assert budget not in choices
        assert choices[0] < budget < choices[-1]
        below = max(width for width in choices if width < budget)
        above = min(width for width in choices if width > budget)
        assert budget - below == above - budget


def test_one_width_is_its_own_budget() -> None:
    assert halfway([6]) == halfway([6, 6]) == 6.0


@pytest.mark.parametrize("per", ["layer", "step"])
@pytest.mark.parametrize("choices", [(4, 6, 8), (4, 8), (2, 3, 4, 6, 8)])
def test_by_default_layers_differ(per: PerUnit, choices: tuple[int, ...]) -> None:
    found = joint_bits(two_sites(), choices=choices, per=per)
    widths = np.concatenate([data["bits"].values.ravel() for data in found.values()])
    assert len(np.unique(widths)) > 1
    assert widths.mean() <= halfway(choices)
    assert {data.attrs["average"] for data in found.values()} == {halfway(choices)}


@pytest.mark.parametrize("average", [4, 4.5, 5, 6, 7, 8, 9])
def test_bits_dealt_by_lot_cost_the_mean_of_all_deals(average: float) -> None:
    error = np.random.default_rng(3).random((4, 3))  # of four units at 4, 6 and 8 bits
    low = min(int(average - 4) // 2, 1)
    more = min(round((average - 4 - 2 * low) / 2 * 4), 4)
    deals = [
        np.mean([error[unit, low + (unit in chosen)] for unit in range(4)])
        for chosen in combinations(range(4), more)
    ]
    lot = by_lot(error.mean(axis=0).tolist(), (4, 6, 8), average)
    np.testing.assert_allclose(lot, np.mean(deals), rtol=1e-12)


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ([4, 4, 6, 0], "2 at 4 and 1 at 6"),
        ([[8.0, np.nan], [4.0, 6.0]], "1 at 4, 1 at 6 and 1 at 8"),
        ([6, 6, 0], "all 2 at 6"),
    ],
)
def test_counts_of_widths_in_words(widths: list[float], words: str) -> None:
    assert in_words(widths) == words


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ([4, 6], ""),
        ([6], ""),  # one unit has no other
        ([4, 4, 0], "no more than the fewest"),
        ([8, 8], "the most bits for all"),
        ([6, np.nan, 6], "as another loses"),
    ],
)
def test_why_all_got_the_same(widths: list[float], words: str) -> None:
    told = why_alike(widths, (8, 6, 4))
    assert words in told
    assert bool(told) == bool(words)

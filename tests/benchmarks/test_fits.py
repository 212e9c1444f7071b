"""Fitted exponents are those of curves whose exponents are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.growth.fits import fit, slope

SIZES = [1, 3, 10, 30, 100]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.15, 2.0])
@pytest.mark.parametrize("constant", [0.0, 2.0])
def test_the_power_and_the_constant_of_an_exact_curve_are_found(
    exponent: float, constant: float
) -> None:
    found = fit(SIZES, [constant + 0.5 * size**exponent for size in SIZES])
    assert found.exponent == pytest.approx(exponent, abs=0.006)
    assert found.constant == pytest.approx(constant, abs=0.05)
    assert found.low <= exponent + 0.006
    assert found.high >= exponent - 0.006


@pytest.mark.parametrize("exponent", [0.9, 1.0, 1.3, 2.0])
def test_the_range_holds_the_true_exponent_of_noisy_curves(exponent: float) -> None:
    inside = 0
    for seed in range(50):
        noise = np.random.default_rng(seed).normal(1, 0.03, len(SIZES))
        true = np.array([0.7 + 0.02 * size**exponent for size in SIZES])
        found = fit(SIZES, (true * noise).tolist())
        inside += found.low <= exponent <= found.high
    assert inside >= 45


def test_verdicts() -> None:
    def verdict(power: float, constant: float = 1.0) -> str:
        return fit(SIZES, [constant + size**power for size in SIZES]).verdict(1.15)

    assert verdict(1.0) == verdict(0.5) == "ok"
    assert verdict(1.5) == verdict(2.0) == "ABOVE"
    assert verdict(2.0, constant=1e6) == "flat"
    assert fit(SIZES, [5.0] * 5).verdict(1.15) == "flat"
    few = fit([1, 2, 3], [1.0, 1.2, 1.5])  # three points of three unknowns
    assert few.low < 1.15 < few.high
    assert few.verdict(1.15) == "unsure"


def test_the_range_is_wide_where_points_lie_far_from_any_curve() -> None:
    sure = fit(SIZES, [1.0 + size for size in SIZES])
    unsure = fit(SIZES, [2.0, 10.0, 11.0, 90.0, 101.0])
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low)


@pytest.mark.parametrize(("sizes", "figures"), [([1, 2], [1, 2]), ([1, 2, 3], [0, 1, 2])])
def test_too_little_is_refused(sizes: list[float], figures: list[float]) -> None:
    with pytest.raises(ValueError, match="at least three"):
        fit(sizes, figures)


def test_slopes_of_counts() -> None:
    assert slope([10, 1000], [7, 7 * 10_000]) == pytest.approx(2)
    assert slope([1, 5, 20], [3, 9, 3]) == 0

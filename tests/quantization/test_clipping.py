"""Errors and clip bounds from a histogram: against the data and frozen brute-force optima."""

from __future__ import annotations

import numpy as np
import pytest

from support import oracle
from support.search_ends import search_alpha, search_range
from taqstore.quantization.counts import expected_error
from taqstore.quantization.quantizer import Quantizer, affine, symmetric
from taqstore.statistics import histogram
from taqstore.statistics.bins import Layout

SINGLES = Layout("float32", 5)


def exact_error(x: np.ndarray, quantizer: Quantizer) -> float:
    return float(np.square(x - quantizer.fake_quantize(x)).mean())


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return oracle.tensor().astype(np.float64)


@pytest.fixture(scope="module")
def counts(x: np.ndarray) -> np.ndarray:
    return histogram.count(x.astype(np.float32), SINGLES)[0]


@pytest.mark.parametrize(
    "quantizer",
    [
        symmetric(3.0, bits=3),
        symmetric(0.7, bits=8),
        affine(-0.4, 5.0, bits=4),
        affine(-9, -2, bits=3),
    ],
    ids=str,
)
def test_error_is_exact_for_values_spread_over_bins(quantizer: Quantizer) -> None:
    """Midpoints of 131,072 equal parts of each bin stand in for the integral."""
    layout = Layout("float16", 2)
    counts = np.zeros(layout.bins, np.int64)
    picked = layout.zero_bin + np.array([-70, -61, -1, 0, 58, 62, 66])
    counts[picked] = [3, 1, 4, 1, 5, 9, 2]
    expected = 0.0
    parts = (np.arange(1 << 17) + 0.5) / (1 << 17)
    for index in picked:
        spread = layout.left[index] + parts * (layout.right[index] - layout.left[index])
        expected += counts[index] * exact_error(spread, quantizer)
    found = expected_error(counts, layout, quantizer)
    assert found == pytest.approx(expected / counts.sum(), rel=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("share", [0.08, 0.3, 1.0])
def test_error_agrees_with_the_data(
    x: np.ndarray, counts: np.ndarray, bits: int, share: float
) -> None:
    quantizer = symmetric(share * np.abs(x).max(), bits=bits)
    found = expected_error(counts, SINGLES, quantizer)
    assert found == pytest.approx(exact_error(x, quantizer), rel=0.03)


def test_error_works_over_leading_axes_and_many_bounds(counts: np.ndarray) -> None:
    alpha = np.array([1.0, 20.0, 0.0, np.nan])
    found = expected_error(counts, SINGLES, symmetric(alpha))
    alone = [float(expected_error(counts, SINGLES, symmetric(a))) for a in alpha]
    assert found == pytest.approx(alone, rel=1e-13, nan_ok=True)
    rows = np.stack([counts, 0 * counts])
    found = expected_error(rows[:, None], SINGLES, symmetric(alpha))
    assert found.shape == (2, 4)
    assert found[0] == pytest.approx(alone, rel=1e-13, nan_ok=True)
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(("bits", "least"), [(4, 3.31868822), (8, 0.262621603)])
def test_found_alpha_is_within_half_a_percent_of_brute_force(
    x: np.ndarray, counts: np.ndarray, bits: int, least: float
) -> None:
    alpha = search_alpha(counts, SINGLES, bits=bits)
    assert exact_error(x, symmetric(alpha, bits=bits)) <= 1.005 * least


@pytest.mark.parametrize(("bits", "least"), [(4, 3.2929), (8, 0.18817)])
def test_found_range_is_within_half_a_percent_of_brute_force(
    x: np.ndarray, counts: np.ndarray, bits: int, least: float
) -> None:
    low, high = search_range(counts, SINGLES, bits=bits)
    assert exact_error(x, affine(low, high, bits=bits)) <= 1.005 * least


def test_searches_work_row_by_row_within_the_data() -> None:
    rng = np.random.default_rng(5)
    layout = Layout("float16", 5)
    data = [rng.normal(size=900), np.abs(rng.standard_cauchy(900)).clip(0, 1e3), np.zeros(0)]
    halves = [values.astype(np.float16) for values in data]
    rows = np.stack([histogram.count(values, layout)[0] for values in halves])
    alpha = search_alpha(rows, layout, bits=4)
    low, high = search_range(rows, layout, bits=4)
    for row in range(2):
        absmax = np.abs(halves[row]).max()
        assert 0 < alpha[row] <= absmax * (1 + 2.0**-5)
        assert low[row] <= 0 <= high[row] <= absmax * (1 + 2.0**-5)
        assert alpha[row] == search_alpha(rows[row], layout, bits=4)
        best = expected_error(rows[row], layout, symmetric(alpha[row], bits=4))
        tried = symmetric(np.linspace(0.01, 1, 200) * absmax, bits=4)
        assert best <= 1.005 * expected_error(rows[row], layout, tried).min()
    assert low[1] == 0
    assert np.isnan([alpha[2], low[2], high[2]]).all()


def test_zeros_alone_are_quantized_without_error() -> None:
    layout = Layout("float16", 10)
    counts, _ = histogram.count(np.zeros(5, np.float16), layout)
    assert search_alpha(counts, layout) == 0
    assert search_range(counts, layout) == (0, 0)

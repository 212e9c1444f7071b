"""Quantizers of least expected error: against brute force on the data, and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import oracle
from taqstore.quantization.counts import mean_over, parts
from taqstore.quantization.quantizer import Quantizer, affine, symmetric
from taqstore.quantization.search import Scheme, best_quantizer, clip_ends, error_table
from taqstore.quantization.spread import Spread
from taqstore.statistics import histogram
from taqstore.statistics.bins import Layout

HALVES = Layout("float16", 10)
COARSE = Layout("float16", 5)
SINGLES = Layout("float32", 5)


def data_error(x: np.ndarray, quantizer: Quantizer, power: float = 2.0) -> float:
    return float((np.abs(x - quantizer.fake_quantize(x)) ** power).mean())


def tensors() -> dict[str, np.ndarray]:
    """float16 values of awkward distributions."""
    rng = np.random.default_rng(20)
    normal = rng.normal(size=20_000)
    return {
        "heavy": rng.standard_t(3, size=20_000),
        "gelu": np.where(normal > 0, 3 * normal, -0.1 * np.abs(np.tanh(normal))),
        "outliers": np.append(0.05 * normal, [40.0, -55.0, 61.0]),
        "negative": -np.abs(normal) - 2.0,
        "uniform": rng.uniform(-1, 1, 20_000),
    }


DATA = {name: x.astype(np.float16) for name, x in tensors().items()}

# From bins alone, 3 % wide: where all hangs on a few values or on the very end of a range, they
# tell less. With extrema beside them half a percent is enough: test_search_known.py.
MARGIN = {"heavy": 1.005, "gelu": 1.005, "outliers": 1.025, "negative": 1.015, "uniform": 1.015}


def brute_symmetric(x: np.ndarray, bits: int, power: float = 2.0) -> float:
    absmax = np.abs(x).max()
    shares = np.arange(1, 101) / 100
    return min(data_error(x, symmetric(g * absmax, bits=bits), power) for g in shares)


def brute_affine(x: np.ndarray, bits: int) -> float:
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    shares = np.linspace(0, 1, 26)
    return min(
        data_error(x, affine(a * low, b * high, bits=bits)) for a in shares for b in shares[1:]
    )


def found_error(x: np.ndarray, layout: Layout, scheme: Scheme, power: float = 2.0) -> float:
    counts, _ = histogram.count(x.astype(layout.dtype), layout)
    best = best_quantizer(counts, Spread.of(layout), scheme, power=power)
    return data_error(x.astype(np.float64), best, power)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("name", DATA)
def test_symmetric_is_near_brute_force(name: str, bits: int) -> None:
    x = DATA[name].astype(np.float64)
    assert found_error(x, COARSE, Scheme(bits)) <= MARGIN[name] * brute_symmetric(x, bits)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("name", DATA)
def test_affine_is_near_brute_force(name: str, bits: int) -> None:
    x = DATA[name][::4].astype(np.float64)
    assert found_error(x, COARSE, Scheme(bits, symmetric=False)) <= MARGIN[name] * brute_affine(
        x, bits
    )


@pytest.mark.parametrize(("bits", "least"), [(4, 3.31868822), (8, 0.262621603)])
def test_frozen_symmetric_optimum(bits: int, least: float) -> None:
    assert found_error(oracle.tensor(), SINGLES, Scheme(bits)) <= 1.005 * least


@pytest.mark.parametrize(("bits", "least"), [(4, 3.2929), (8, 0.18817)])
def test_frozen_affine_optimum(bits: int, least: float) -> None:
    assert found_error(oracle.tensor(), SINGLES, Scheme(bits, symmetric=False)) <= 1.005 * least


@pytest.mark.parametrize(("bits", "share"), [(4, 0.19), (8, 0.92)])
def test_frozen_clip_of_least_l24(bits: int, share: float) -> None:
    """The share is of a grid of hundredths; the error is compared with that grid's least."""
    x = oracle.tensor().astype(np.float64)
    counts, _ = histogram.count(oracle.tensor(), SINGLES)
    scheme = Scheme(bits)
    best = best_quantizer(counts, Spread.of(SINGLES), scheme, power=2.4)
    assert clip_ends(best, scheme)[1] / np.abs(x).max() == pytest.approx(share, abs=0.015)
    least = data_error(x, symmetric(share * np.abs(x).max(), bits=bits), 2.4)
    assert data_error(x, best, 2.4) <= 1.005 * least


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("name", DATA)
def test_single_values_are_exact(name: str, bits: int) -> None:
    """With 10 mantissa bits the expected error is that of the data; brute force hardly wins."""
    x = DATA[name].astype(np.float64)
    counts, _ = histogram.count(DATA[name], HALVES)
    spread = Spread.of(HALVES)
    for scheme in (Scheme(bits), Scheme(bits, symmetric=False)):
        best = best_quantizer(counts, spread, scheme)
        expected = mean_over(counts[None], spread, lambda bins, _, q=best: bins.error(q))
        assert expected.item() == pytest.approx(data_error(x, best), rel=1e-12)
    error = data_error(x, best_quantizer(counts, spread, Scheme(bits)))
    slack = 1.0 if name in ("heavy", "gelu", "uniform") else 1.0005
    assert error <= slack * brute_symmetric(x, bits)


def test_table_holds_the_errors_of_the_data() -> None:
    x = [DATA["heavy"], DATA["gelu"][:500]]
    counts = np.stack([histogram.count(values, HALVES)[0] for values in x])
    pieces = parts(counts.astype(np.float64), Spread.of(HALVES))
    candidates = affine([-2.0, 0.0, -30.0], [5.0, 0.5, 0.0], bits=3)
    for power in (2.0, 2.4):
        table = error_table(pieces, candidates, power=power)
        for row, column in np.ndindex(2, 3):
            values = x[row].astype(np.float64)
            expected = data_error(values, candidates[column], power) * values.size
            assert table[row, column] == pytest.approx(expected, rel=1e-12)


def test_errors_of_spread_values_by_sampling() -> None:
    """65,536 midpoints of a bin stand in for the integrals of |error|^2.4 and of the clip loss."""
    spread = Spread(np.array([-4.0, 0.5, 7.0]), np.array([-3.0, 0.625, 8.0]))
    quantizer = symmetric(3.3, bits=4)
    parts = (np.arange(1 << 16) + 0.5) / (1 << 16)
    values = spread.left[:, None] + parts * (spread.right - spread.left)[:, None]
    rest = np.abs(values - quantizer.fake_quantize(values))
    assert spread.error(quantizer, power=2.4) == pytest.approx((rest**2.4).mean(1), rel=1e-6)
    low, high = (level * quantizer.step_size for level in quantizer.levels)
    beyond = values - np.clip(values, low, high)
    assert spread.clip_loss(quantizer) == pytest.approx((beyond**2).mean(1), rel=1e-8, abs=0)
    assert spread.square() == pytest.approx((values**2).mean(1), rel=1e-8)


def test_rows_do_not_see_each_other() -> None:
    """Any order and company of rows gives the same quantizers."""
    counts = np.stack([histogram.count(x, COARSE)[0] for x in DATA.values()])
    counts = np.append(counts, np.zeros((1, COARSE.bins), np.int64), axis=0)
    shuffled = np.random.default_rng(0).permutation(len(counts))
    for scheme in (Scheme(4), Scheme(8, symmetric=False)):
        together = best_quantizer(counts, Spread.of(COARSE), scheme)
        mixed = best_quantizer(counts[shuffled], Spread.of(COARSE), scheme)
        np.testing.assert_array_equal(mixed.step_size, together.step_size[shuffled])
        np.testing.assert_array_equal(mixed.zero_point, together.zero_point[shuffled])
        alone = [best_quantizer(row, Spread.of(COARSE), scheme).step_size for row in counts]
        np.testing.assert_array_equal(together.step_size, alone)
        assert np.isnan(together.step_size[-1])


def test_nothing_but_zeros() -> None:
    counts, _ = histogram.count(np.zeros(5, np.float16), HALVES)
    for scheme in (Scheme(4), Scheme(4, symmetric=False)):
        assert best_quantizer(counts, Spread.of(HALVES), scheme).step_size == 0


values = st.lists(
    st.floats(-60, 60, width=16, allow_subnormal=False), min_size=1, max_size=30
).filter(lambda x: any(x))


@settings(max_examples=40, deadline=None)
@given(values, st.booleans(), st.integers(2, 7))
def test_more_bits_are_never_worse_than_covering_the_range(
    x: list[float], is_symmetric: bool, bits: int
) -> None:
    array = np.array(x, np.float16)
    counts, _ = histogram.count(array, HALVES)
    spread, wide = Spread.of(HALVES), array.astype(np.float64)
    best = best_quantizer(counts, spread, Scheme(bits, is_symmetric))
    if is_symmetric:
        covering = symmetric(np.abs(wide).max(), bits=bits)
    else:
        covering = affine(min(wide.min(), 0), max(wide.max(), 0), bits=bits)
    assert data_error(wide, best) <= data_error(wide, covering) * (1 + 1e-6) + 1e-18
    # Every grid of b bits is every other point of one of b + 1 bits, but for its ends.
    finer = Quantizer(best.step_size / 2, 2 * best.zero_point, 2 * best.qmin, 2 * best.qmax)
    assert data_error(wide, finer) <= data_error(wide, best) + 1e-18


@settings(max_examples=30, deadline=None)
@given(values, st.booleans(), st.integers(-6, 6))
def test_scale_equivariance_is_exact_for_powers_of_two(
    x: list[float], is_symmetric: bool, octaves: int
) -> None:
    layout = Layout("float32", 6)
    array = np.array(x, np.float32)
    scheme = Scheme(4, is_symmetric)
    one, two = (
        best_quantizer(histogram.count(part, layout)[0], Spread.of(layout), scheme)
        for part in (array, array * np.float32(2.0**octaves))
    )
    assert two.step_size == one.step_size * 2.0**octaves
    assert two.zero_point == one.zero_point

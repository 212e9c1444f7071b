"""Histograms: counting against a naive search, exactness, merging, quantiles and their bounds."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support import oracle
from taqstore.errors import TaqError
from taqstore.statistics import histogram
from taqstore.statistics.histogram import Layout

EXACT = Layout("float16", 10)
HALVES = Layout("float16", 5)
SINGLES = Layout("float32", 5)

# Every bit pattern may turn up: NaN payloads, infinities, both zeros, subnormals.
any_halves = hnp.arrays(np.uint16, st.integers(0, 60)).map(lambda bits: bits.view(np.float16))
any_singles = hnp.arrays(np.uint32, st.integers(0, 60)).map(lambda bits: bits.view(np.float32))
quick = settings(max_examples=60, deadline=None)


def naive_count(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Search the edges for every value: [left, right) from zero up, (left, right] below."""
    finite = values[np.isfinite(values)].astype(np.float64)
    up = np.searchsorted(layout.edges(), finite, side="right") - 1
    down = np.searchsorted(layout.edges(), finite, side="left") - 1
    return np.bincount(np.where(finite < 0, down, up), minlength=layout.bins)


def naive_nonfinite(values: np.ndarray) -> list[int]:
    return [int(np.sum(flag)) for flag in (np.isnan(values), values == np.inf, values == -np.inf)]


def heavy_tailed(n: int, seed: int = 7) -> np.ndarray:
    """float16 values over many octaves with zeros of both signs and subnormals."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2, n) * np.exp(rng.normal(0, 2, n))
    values[::17], values[1::17], values[2::19] = 0.0, -0.0, 3e-7
    return values.clip(-6e4, 6e4).astype(np.float16)


@pytest.mark.parametrize("mantissa_bits", range(11))
def test_every_float16_value_is_counted_where_a_search_finds_it(mantissa_bits: int) -> None:
    every = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    layout = Layout("float16", mantissa_bits)
    counts, nonfinite = histogram.count(every, layout)
    assert np.array_equal(counts, naive_count(every, layout))
    assert nonfinite.tolist() == naive_nonfinite(every) == [2046, 1, 1]
    assert counts.dtype == nonfinite.dtype == np.int64


@quick
@given(any_singles, st.sampled_from([0, 5, 7]))
def test_float32_values_are_counted_where_a_search_finds_them(
    values: np.ndarray, mantissa_bits: int
) -> None:
    layout = Layout("float32", mantissa_bits)
    counts, nonfinite = histogram.count(values, layout)
    assert np.array_equal(counts, naive_count(values, layout))
    assert nonfinite.tolist() == naive_nonfinite(values)


@quick
@given(any_halves, st.integers(0, 60))
def test_counting_parts_and_adding_is_counting_the_whole(values: np.ndarray, cut: int) -> None:
    whole = histogram.count(values, HALVES)
    parts = [histogram.count(part, HALVES) for part in (values[:cut], values[cut:])]
    assert np.array_equal(histogram.add(parts[0][0], parts[1][0]), whole[0])
    assert np.array_equal(parts[0][1] + parts[1][1], whole[1])


@quick
@given(any_halves, any_halves, any_halves)
def test_adding_is_associative_and_commutative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = (histogram.count(v, HALVES)[0] for v in (a, b, c))
    left = histogram.add(histogram.add(x, y), z)
    assert np.array_equal(left, histogram.add(z, histogram.add(y, x)))
    assert np.array_equal(left, histogram.add(x, y, z))


@quick
@given(any_halves, st.integers(0, 10), st.data())
def test_coarsening_is_counting_with_fewer_bits(
    values: np.ndarray, fine: int, data: st.DataObject
) -> None:
    coarse = data.draw(st.integers(0, fine))
    counts, _ = histogram.count(values, Layout("float16", fine))
    summed, layout = histogram.coarsen(counts, Layout("float16", fine), coarse)
    assert layout == Layout("float16", coarse)
    assert np.array_equal(summed, histogram.count(values, layout)[0])


@quick
@given(any_singles)
def test_negation_mirrors_all_but_zero(values: np.ndarray) -> None:
    counts, nonfinite = histogram.count(values[values != 0], SINGLES)
    mirrored, swapped = histogram.count(-values[values != 0], SINGLES)
    tiny = np.sum((values != 0) & (np.abs(values) < SINGLES.right[SINGLES.zero_bin]))
    assert np.array_equal(mirrored, counts[::-1])
    assert swapped.tolist() == nonfinite[[0, 2, 1]].tolist()
    assert counts[SINGLES.zero_bin - 1 : SINGLES.zero_bin + 1].sum() == tiny


@quick
@given(any_halves, st.randoms(use_true_random=False))
def test_order_and_shape_do_not_matter(values: np.ndarray, random: object) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.array_equal(
        histogram.count(values, EXACT)[0], histogram.count(shuffled.reshape(-1, 1), EXACT)[0]
    )


def test_strided_and_foreign_endian_arrays_count_the_same() -> None:
    values = heavy_tailed(4800).reshape(40, 10, 12)
    expected = naive_count(values[::3, ::-1, 1::2], HALVES)
    awkward = values[::3, ::-1, 1::2]
    for array in (awkward, awkward.transpose(2, 0, 1), awkward.astype(">f2"), awkward.tolist()):
        assert np.array_equal(histogram.count(array, HALVES)[0], expected)


def test_wider_data_goes_into_a_narrow_layout_only_where_nothing_is_lost() -> None:
    halves = heavy_tailed(500)
    expected = histogram.count(halves, HALVES)[0]
    widened = np.append(halves, [np.nan, np.inf, -np.inf]).astype(np.float32)
    counts, nonfinite = histogram.count(widened, HALVES)
    assert np.array_equal(counts, expected)
    assert nonfinite.tolist() == [1, 1, 1]
    for lossy in (0.1, 65536.0, 1e-9):
        bad = np.append(widened, np.float32(lossy))
        with pytest.raises(TaqError, match="float32 values do not fit a float16 histogram"):
            histogram.count(bad, HALVES)
    assert np.array_equal(histogram.count(halves, SINGLES)[0], naive_count(halves, SINGLES))


@pytest.mark.parametrize("values", [np.arange(3), np.array([True]), np.array(["1.0"])])
def test_only_floating_point_values_are_counted(values: np.ndarray) -> None:
    with pytest.raises(TaqError, match="needs floating-point values"):
        histogram.count(values, HALVES)


@pytest.mark.parametrize("step", [1, 2])
def test_memory_of_counting_does_not_grow_with_the_array(step: int) -> None:
    values = np.ones((2000, 2000), np.float16)[:, ::step]
    tracemalloc.start()
    histogram.count(values, HALVES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_different_layouts_do_not_add() -> None:
    with pytest.raises(TaqError, match="1984 and 992 bins"):
        histogram.add(np.zeros(1984, int), np.zeros(992, int))


def test_coarsening_cannot_invent_bits() -> None:
    with pytest.raises(TaqError, match="5 mantissa bits cannot be coarsened to 6"):
        histogram.coarsen(np.zeros(1984, int), HALVES, 6)


def test_quantiles_at_ranks_are_order_statistics_to_the_last_bit() -> None:
    values = heavy_tailed(1025)
    counts, _ = histogram.count(values, EXACT)
    q = np.arange(1025) / 1024
    assert np.array_equal(histogram.quantile(counts, EXACT, q), np.sort(values).astype(float))
    absolute = np.sort(np.abs(values)).astype(float)
    assert np.array_equal(histogram.absolute_quantile(counts, EXACT, q), absolute)


@quick
@given(any_halves, st.floats(0, 1))
def test_quantiles_of_exact_bins_are_those_of_numpy(values: np.ndarray, q: float) -> None:
    finite = values[np.isfinite(values)].astype(float)
    counts, _ = histogram.count(values, EXACT)
    if not finite.size:
        assert np.isnan(histogram.quantile(counts, EXACT, q))
        return
    found = histogram.quantile(counts, EXACT, q), histogram.absolute_quantile(counts, EXACT, q)
    expected = np.quantile(finite, q), np.quantile(np.abs(finite), q)
    span = np.abs(finite).max()
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12 * span)


@quick
@given(any_singles, st.floats(0, 1), st.sampled_from([0, 3, 7]))
def test_quantiles_are_off_by_less_than_a_bin(
    values: np.ndarray, q: float, mantissa_bits: int
) -> None:
    layout = Layout("float32", mantissa_bits)
    finite = values[np.isfinite(values)].astype(float)
    if not finite.size:
        return
    counts, _ = histogram.count(values, layout)
    ends = [np.quantile(finite, q, method=method) for method in ("lower", "higher")]
    index = np.searchsorted(layout.edges(), ends)
    near = np.clip(index[:, None] + [-1, 0], 0, layout.bins - 1)
    width = np.diff(layout.edges())[near].max()
    assert abs(histogram.quantile(counts, layout, q) - np.quantile(finite, q)) <= width


def test_quantiles_work_over_leading_axes_and_shapes_of_q() -> None:
    rows = [heavy_tailed(n, seed=n) for n in (1, 2, 50, 333)]
    stacked = np.stack([histogram.count(r, HALVES)[0] for r in rows] + [np.zeros(1984, int)] * 2)
    counts = stacked.reshape(2, 3, 1984).astype(np.uint32)
    q = np.array([[0.0, 0.01], [0.5, 1.0]])
    found = histogram.quantile(counts, HALVES, q)
    assert found.shape == (2, 3, 2, 2)
    assert np.isnan(found[1, 1:]).all()
    for row, values in zip(found.reshape(6, 4), stacked[:4], strict=False):
        assert np.array_equal(row, histogram.quantile(values, HALVES, q.ravel()))
    assert histogram.quantile(stacked[0], HALVES, 0.5).shape == ()
    assert histogram.quantile(np.zeros((0, 1984), int), HALVES, 0.5).shape == (0,)


def test_values_are_spread_evenly_within_a_bin() -> None:
    counts = np.zeros(1984, np.int64)
    first = int(np.flatnonzero(HALVES.left == 1.0)[0])
    counts[first] = 4
    low, high = 1.0, float(np.nextafter(np.float16(1.03125), np.float16(0)))
    spread = low + (high - low) * np.array([0.125, 0.375, 0.625, 0.875])
    q = np.arange(4) / 3
    assert histogram.quantile(counts, HALVES, q) == pytest.approx(spread, rel=1e-12)
    assert histogram.quantile(counts[::-1], HALVES, q) == pytest.approx(-spread[::-1], rel=1e-12)


@pytest.mark.parametrize("q", [-0.1, 1.01, np.nan, [0.5, 99.9]])
def test_percentages_are_not_taken_for_probabilities(q: float) -> None:
    with pytest.raises(TaqError, match="between 0 and 1"):
        histogram.quantile(np.zeros(1984, int), HALVES, q)


@quick
@given(any_halves)
def test_negative_fraction_is_exact(values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    widest = Layout("float16", 0)
    found = histogram.negative_fraction(histogram.count(values, widest)[0], widest)
    expected = (finite < 0).mean() if finite.size else np.nan
    assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def test_mass_near_zero() -> None:
    values = heavy_tailed(4000)
    counts, _ = histogram.count(values, HALVES)
    stacked = np.stack([counts, counts, counts, counts, 0 * counts])
    bound = np.array([0.5, np.inf, 0.0, 1.01, 1.0])
    found = histogram.mass_near_zero(stacked, HALVES, bound)
    assert found[0] == (np.abs(values) < 0.5).mean()
    assert found[1:3].tolist() == [1.0, 0.0]
    at_edges = [(np.abs(values) < edge).mean() for edge in (1.0, 1.03125)]
    assert found[3] == pytest.approx(at_edges[0] + 0.32 * (at_edges[1] - at_edges[0]), rel=1e-12)
    assert np.isnan(found[4])


def test_frozen_tensor_statistics() -> None:
    """Values of the exact data, computed once elsewhere."""
    x = oracle.tensor()
    counts, nonfinite = histogram.count(x, SINGLES)
    assert nonfinite.tolist() == [0, 0, 0]
    assert histogram.negative_fraction(counts, SINGLES) == pytest.approx(0.477249146, abs=5e-10)
    q, exact = [0.99, 0.999, 0.9999], [17.5723305, 41.1761093, 90.655838]
    for bits in (5, 10):
        layout = Layout("float32", bits)
        counts, _ = histogram.count(x, layout)
        found = histogram.absolute_quantile(counts, layout, q)
        assert found == pytest.approx(exact, rel=2.0**-bits)
        found = histogram.quantile(counts, layout, [0.001, 0.999])
        assert found == pytest.approx([-29.9052696, 33.8980598], rel=2.0**-bits)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64, np.int32])
def test_narrow_counts_do_not_overflow_where_signs_are_folded(dtype: type) -> None:
    counts = np.full((3, HALVES.bins), np.iinfo(dtype).max >> (dtype is np.uint64) >> 1, dtype)
    np.testing.assert_array_equal(
        histogram.fold(counts, HALVES), 2 * counts[:, : HALVES.zero_bin].astype(np.int64)
    )
    if np.iinfo(dtype).max < 2**33:
        counts[...] = np.iinfo(dtype).max
        assert (histogram.fold(counts, HALVES) == 2 * int(np.iinfo(dtype).max)).all()

"""Distances of histograms: closed forms, SciPy-free naive sums, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taqstore.analysis.shared.divergence import histogram_distances
from taqstore.statistics.histogram import Layout

EDGES = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, 7.0])

COUNTS = hnp.arrays(np.int64, (3, 5), elements=st.integers(0, 1000))


def naive(p: np.ndarray, q: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """Divergence by its definition; distance by a fine Riemann sum of |P - Q|."""
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    bits = sum(
        0.5 * side * np.log2(side / middle)
        for share in (p, q)
        for side, middle in zip(share, m, strict=True)
        if side > 0
    )
    x = np.linspace(edges[0], edges[-1], 400_001)
    gap = np.interp(x, edges, np.append(0, p.cumsum())) - np.interp(
        x, edges, np.append(0, q.cumsum())
    )
    return bits, float(np.abs((gap[1:] + gap[:-1]) / 2).sum() * (x[1] - x[0]))


def test_against_definitions() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 50, (2, 6, 5))
    divergence, distance = histogram_distances(a, EDGES, b, EDGES)
    for row in range(6):
        bits, moved = naive(a[row], b[row], EDGES)
        assert divergence[row] == pytest.approx(bits, rel=1e-12, abs=1e-15)
        assert distance[row] == pytest.approx(moved, rel=1e-8)


def test_disjoint_is_one_bit_and_the_distance_of_the_bins() -> None:
    a, b = np.array([4, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 9])
    divergence, distance = histogram_distances(a, EDGES, b, EDGES)
    assert divergence == 1.0
    # From the middle of [-3, -1] to that of [2, 7]: disjoint mass moves by the gap of the means.
    assert distance == pytest.approx(4.5 - -2.0, rel=1e-15)


def test_shifted_histogram_moves_by_its_shift() -> None:
    """W1 of a distribution and its copy moved by d is |d|, whatever the shape and the edges."""
    counts = np.random.default_rng(3).integers(0, 90, (4, 5))
    for shift in (-11.0, 0.3, 2.5):
        _, distance = histogram_distances(counts, EDGES, counts, EDGES + shift)
        np.testing.assert_allclose(distance, abs(shift), rtol=1e-12)


def test_bins_of_different_edges_are_compared_as_densities() -> None:
    """The same density in half as wide bins is the same distribution."""
    fine = np.sort(np.concatenate([EDGES, (EDGES[1:] + EDGES[:-1]) / 2]))
    counts = np.random.default_rng(4).integers(1, 90, (4, 5))
    divergence, distance = histogram_distances(counts, EDGES, np.repeat(counts, 2, axis=1), fine)
    np.testing.assert_allclose(divergence, 0, atol=1e-14)
    np.testing.assert_allclose(distance, 0, atol=1e-14)


def test_edges_of_their_own_for_every_row() -> None:
    rng = np.random.default_rng(5)
    counts, others = rng.integers(1, 50, (2, 6, 5))
    edges = EDGES + rng.normal(size=(6, 1))
    theirs = np.sort(rng.normal(size=(6, 6)), axis=1)
    whole = histogram_distances(counts, edges, others, theirs)
    for row in range(6):
        one = histogram_distances(counts[row], edges[row], others[row], theirs[row])
        assert [float(v) for v in one] == [float(v[row]) for v in whole]
        x = np.union1d(edges[row], theirs[row])
        cdf = [
            np.interp(x, e, np.append(0, np.cumsum(c / c.sum())))
            for e, c in ((edges[row], counts[row]), (theirs[row], others[row]))
        ]
        expected = naive(np.diff(cdf[0]), np.diff(cdf[1]), x)
        assert whole[0][row] == pytest.approx(expected[0], rel=1e-9)
        assert whole[1][row] == pytest.approx(expected[1], rel=1e-6)


def test_nothing_counted_is_not_known() -> None:
    a, b = np.zeros((2, 5), int), np.ones((2, 5), int)
    for edges in (EDGES, EDGES + 1):
        for values in histogram_distances(a, EDGES, b, edges):
            assert np.isnan(values).all()


def test_float32_bins_up_to_the_largest_exponent() -> None:
    layout = Layout("float32", 0)
    a, b = (np.zeros(layout.bins, int) for _ in range(2))
    a[layout.zero_bin + 127] = b[layout.zero_bin + 128] = 3
    divergence, distance = histogram_distances(a, layout.edges(), b, layout.edges())
    assert divergence == 1.0
    assert distance == pytest.approx(1.5, rel=1e-12)  # [1, 2) to [2, 4)


@settings(deadline=None)
@given(COUNTS, COUNTS)
def test_symmetric_and_bounded(a: np.ndarray, b: np.ndarray) -> None:
    ours, theirs = (histogram_distances(x, EDGES, y, EDGES) for x, y in ((a, b), (b, a)))
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-15)
    known = (a.sum(axis=1) > 0) & (b.sum(axis=1) > 0)
    assert (np.isnan(ours[0]) == ~known).all()
    assert ((ours[0][known] >= -1e-15) & (ours[0][known] <= 1 + 1e-15)).all()
    assert (ours[1][known] >= 0).all()


@settings(deadline=None)
@given(COUNTS, COUNTS, COUNTS)
def test_wasserstein_is_a_metric(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    def moved(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return histogram_distances(x, EDGES, y, EDGES)[1]

    straight, detour = moved(a, c), moved(a, b) + moved(b, c)
    known = ~np.isnan(detour)
    assert (straight[known] <= detour[known] + 1e-12).all()
    same = moved(a, 7 * a)
    assert (np.isnan(same) | (same < 1e-14)).all()

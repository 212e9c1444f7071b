"""Counts laid over other edges: `numpy.histogram` of the values themselves is the judge."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.statistics.bins import Layout
from taqstore.statistics.even_bins import over_edges
from taqstore.statistics.histogram import count

EDGES = np.linspace(-8, 8, 513)


def values(dtype: str) -> np.ndarray:
    """Values of all sizes, and every edge itself, on both sides of zero and beyond the ends."""
    rng = np.random.default_rng(3)
    spread = rng.normal(size=4000) * np.exp(rng.normal(0, 2, 4000))
    return np.concatenate([spread, EDGES, [0.0, -0.0, 8.0, -8.0, 9.0, -100.0]]).astype(dtype)


def test_single_values_are_counted_as_numpy_counts_them() -> None:
    x, layout = values("float16"), Layout("float16", 10)
    found, cut = over_edges(count(x, layout)[0], layout, EDGES)
    assert np.array_equal(found, np.histogram(x.astype(np.float64), EDGES)[0])
    assert cut == 0


@pytest.mark.parametrize("bits", [0, 3, 5, 8])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bins_that_an_edge_cuts_are_told_and_the_others_exact(dtype: str, bits: int) -> None:
    x, layout = values(dtype), Layout(dtype, bits)
    found, cut = over_edges(count(x, layout)[0], layout, EDGES)
    truth = np.histogram(x.astype(np.float64), EDGES)[0]
    assert (found >= 0).all()
    # A value moves from one bin to another: it is counted twice.
    assert np.abs(found - truth).sum() <= 2 * cut


def test_leading_axes_are_kept() -> None:
    layout = Layout("float16", 6)
    rows = np.stack([count(values("float16")[i::2], layout)[0] for i in range(2)])
    found, cut = over_edges(rows[None], layout, EDGES)
    assert (found.shape, cut.shape) == ((1, 2, 512), (1, 2))
    for row in range(2):
        assert np.array_equal(found[0, row], over_edges(rows[row], layout, EDGES)[0])

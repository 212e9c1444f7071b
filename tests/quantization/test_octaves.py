"""Errors from tables that octaves share: those of every bin by itself, and the same quantizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore.quantization.counts import Part, mean_over, parts
from taqstore.quantization.octaves import Octaves
from taqstore.quantization.search import Scheme, best_quantizer, error_table
from taqstore.quantization.spread import Spread
from taqstore.statistics import histogram
from taqstore.statistics.bins import Layout

LAYOUTS = (Layout("float16", 5), Layout("float16", 2), Layout("float32", 4), Layout("float32", 0))


def rows_of(seed: int, layout: Layout) -> list[np.ndarray]:
    """Tensors of awkward sizes: subnormal, huge, one-sided, constant, empty, with outliers."""
    rng = np.random.default_rng(seed)
    limit = 1e3 if layout.dtype == "float16" else 1e30
    found = []
    for size in rng.integers(1, 400, 5):
        scale = np.exp2(rng.uniform(-22, np.log2(limit / 16)))
        values = rng.standard_t(3, int(size)) * scale
        values = np.abs(values) if rng.random() < 0.3 else values
        if rng.random() < 0.3:
            values = np.append(values, [limit, -limit / 3])
        found.append(np.clip(values, -limit, limit))
    return [*found, np.full(7, 0.375), np.zeros(5), np.zeros(0)]


def counted(tensors: list[np.ndarray], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Histograms, and the two ends of each tensor: NaN where it is empty."""
    tensors = [x.astype(layout.dtype) for x in tensors]
    counts = np.stack([histogram.count(x, layout)[0] for x in tensors])
    ends = [[x.min(), x.max()] if x.size else [np.nan] * 2 for x in tensors]
    return counts, np.array(ends, np.float64)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    layout=st.sampled_from(LAYOUTS),
    bits=st.integers(2, 12),
    narrow=st.booleans(),
    ends=st.booleans(),
)
def test_the_same_quantizers_as_bin_by_bin(
    seed: int, layout: Layout, bits: int, narrow: bool, ends: bool
) -> None:
    counts, known = counted(rows_of(seed, layout), layout)
    scheme, spread = Scheme(bits, narrow_range=narrow), Spread.of(layout)
    values = known if ends else None
    found = best_quantizer(counts, spread, scheme, known=values)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Octaves, "of", classmethod(lambda cls, part: None))
        slow = best_quantizer(counts, spread, scheme, known=values)
    np.testing.assert_array_equal(found.step_size, slow.step_size)
    assert not found.zero_point.any()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    layout=st.sampled_from(LAYOUTS),
    bits=st.sampled_from([2, 4, 8]),
    octave=st.integers(-30, 12),
)
def test_a_table_of_one_octave_is_that_of_every_bin(
    seed: int, layout: Layout, bits: int, octave: int
) -> None:
    counts, _ = counted(rows_of(seed, layout)[:6], layout)
    used = np.flatnonzero(counts.any(axis=0))
    part = Part(counts[:, used].astype(np.float64), Spread.of(layout)[used])
    octaves, scheme = Octaves.of(part), Scheme(bits)
    if octaves is None:
        return  # too few bins of whole octaves: there is nothing to compare
    step = np.exp2(octave + np.arange(8) / 8)
    tried = scheme.quantizer(step, np.zeros(8))
    found = octaves.errors(scheme, octave, 8) + error_table([octaves.rest], tried)
    np.testing.assert_allclose(found, error_table([part], tried), rtol=1e-10)


@pytest.mark.parametrize(
    "spread",
    [
        Spread(np.array([1.0, 1.3]), np.array([1.3, 1.7])),
        Spread(np.array([-1.0, 1.0]), np.array([1.0, 2.0])),
        Spread(np.array([1.0]), np.array([1.0]), points=True),
        Spread(np.zeros((1, 1)), np.ones((1, 1))),
        Spread.of(Layout("float16", 10)),
    ],
)
def test_other_bins_are_left_to_the_general_search(spread: Spread) -> None:
    shape: Any = spread.left.shape if spread.left.ndim > 1 else (1, len(spread.left))
    assert Octaves.of(Part(np.ones(shape), spread)) is None


def test_known_values_decide_only_where_they_can() -> None:
    """One far outlier that is known: the clip bound is that of trying it with every step size."""
    layout = Layout("float16", 5)
    values = np.append(np.random.default_rng(5).normal(size=4000), [300.0])
    counts, known = counted([values], layout)
    scheme = Scheme(4)
    best = best_quantizer(counts, Spread.of(layout), scheme, known=known)
    pieces = parts(counts.astype(np.float64), Spread.of(layout), known)
    steps = np.exp2(np.arange(-6 * 256, 8 * 256) / 256)
    table = error_table(pieces, scheme.quantizer(steps, np.zeros(len(steps))))
    mine = error_table(pieces, best)
    assert mine.item() <= table.min() * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([4, 8]))
def test_a_row_has_the_same_sums_whichever_others_there_are(seed: int, bits: int) -> None:
    """So that a store read in blocks, and what is held of it, give the same numbers to the bit."""
    layout, scheme = LAYOUTS[0], Scheme(bits)
    counts, _ = counted([x for x in rows_of(seed, layout) if x.size], layout)
    every = mean_over(counts, Spread.of(layout), lambda bins, _: bins.square())
    for row in range(len(counts)):
        used = np.flatnonzero(counts[row])
        alone = counts[row : row + 1, used]
        one = mean_over(alone, Spread.of(layout)[used], lambda bins, _: bins.square())
        assert one.item() == every[row]
        best = best_quantizer(alone, Spread.of(layout)[used], scheme)
        assert (
            best.step_size.item()
            == best_quantizer(counts, Spread.of(layout), scheme).step_size[row]
        )

"""Values selected from rows are NumPy's own, whatever the rows hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore.statistics.selected import least, median, outermost_of

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 65504.0, 6e-8, 1.0]


@st.composite
def rows(draw: Any) -> np.ndarray:
    """Rows with ties, zeros of both signs, infinities, and NaN of both signs in some."""
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    shape = draw(st.sampled_from([(1,), (2,), (3, 5), (2, 3, 40), (2, 2, 3, 300), (2, 1, 519)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=shape) * draw(st.sampled_from([1e-6, 1.0, 1e3]))
    x = np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL[: draw(st.integers(2, 9))], shape), x)
    return x.round(draw(st.integers(0, 8))).astype(dtype)


@settings(deadline=None)
@given(x=rows(), count=st.integers(1, 4))
def test_the_least_and_the_largest_are_those_of_a_sort(x: np.ndarray, count: int) -> None:
    for largest in (False, True):
        found = np.sort(least(x, count, largest=largest), axis=-1)
        ordered = -np.sort(-x, axis=-1) if largest else np.sort(x, axis=-1)
        expected = np.full((*x.shape[:-1], count), np.nan, x.dtype)
        expected[..., : x.shape[-1]] = ordered[..., :count]
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, np.sort(expected, axis=-1))


@settings(deadline=None)
@given(x=rows())
def test_ends_over_the_first_axis_are_numpys(x: np.ndarray) -> None:
    for largest, expected in ((False, x.min(axis=0)), (True, x.max(axis=0))):
        found = outermost_of(x, largest=largest)
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, expected)


@settings(deadline=None)
@given(x=rows())
def test_the_median_is_numpys(x: np.ndarray) -> None:
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(median(wide), np.median(wide, axis=-1))

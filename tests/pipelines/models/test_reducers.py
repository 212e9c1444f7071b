"""Reducers on the device: as many kernels for any number of rows, and what NumPy counts."""

from __future__ import annotations

import io
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.reducers import lazily_observed, mlx_reducer, numpy_reducer

from support.same_stores import assert_same_bits


def kernels(rows: int, dtype: str) -> Counter[str]:
    """Operations of the graph that is evaluated for a tensor, by name."""
    mx, text = backend().mx, io.StringIO()
    x = mx.array(np.ones((2, rows // 2, 1, 8), np.float32)).astype(getattr(mx, dtype))
    mx.eval(x)
    mx.export_to_dot(text, *lazily_observed(x, 5).values())
    return Counter(re.findall(r'label ="(\w+)"', text.getvalue()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_large_tensor_launches_as_many_kernels_as_a_small_one(dtype: str) -> None:
    small = kernels(64, dtype)
    assert sum(small.values()) > 10
    assert kernels(4096, dtype) == small
    assert kernels(66, dtype) == kernels(4094, dtype) == small


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.integers(1, 5),
    st.sampled_from(["float16", "float32"]),
    st.integers(0, 10),
)
def test_what_numpy_counts(seed: int, rows: int, channels: int, dtype: str, bits: int) -> None:
    """Extrema and counts to the bit, negative zeros and subnormals included; moments closely."""
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-24, 8, (rows, channels))
    x: Any = (rng.standard_normal((rows, channels)) * scale).astype(dtype)
    x[rng.random(x.shape) < 0.2] = -0.0
    top = float(abs(x).max())
    tensors = [backend().mx.array(part) for part in (x, x[:1], x[::-1].copy())]
    for ours, theirs in zip(mlx_reducer(tensors, bits), numpy_reducer(tensors, bits), strict=True):
        assert_same_bits(ours.histogram, theirs.histogram)
        np.testing.assert_array_equal(ours.min, theirs.min)
        np.testing.assert_array_equal(ours.max, theirs.max)
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6, atol=1e-6 * top)
        np.testing.assert_allclose(ours.m2, theirs.m2, rtol=1e-4, atol=1e-9 * top**2)


def test_a_tensor_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    mx, rng = backend().mx, np.random.default_rng(1)
    sound = rng.standard_normal((70, 3)).astype(np.float32)
    broken = sound.copy()
    broken[3, 1] = np.nan
    first, second, third = mlx_reducer([mx.array(x) for x in (sound, broken, sound)], 5)
    counted = [one.nonfinite.tolist() for one in (first, second, third)]
    assert counted == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert_same_bits(first.mean, third.mean)

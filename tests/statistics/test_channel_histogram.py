"""Histograms of channels counted together, beside those of each channel counted alone."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.statistics.channel_histogram import count_blocks
from taqstore.statistics.histogram import Layout, count


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bits", [0, 1, 5, 10])
@pytest.mark.parametrize("channels", [1, 3, 70])
def test_any_bits_are_counted_as_alone(dtype: str, bits: int, channels: int) -> None:
    """Also NaN of every kind, infinities, both zeros and subnormals; the smallest, the largest."""
    rng, width = np.random.default_rng(bits), np.dtype(dtype).itemsize
    words = rng.integers(0, 1 << 8 * width, (200, channels), f"u{width}")
    values = words.view(dtype)
    limits = np.finfo(dtype)
    values[:7, 0] = [-0.0, 0.0, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal]
    layout = Layout(dtype, bits)
    with np.errstate(invalid="ignore"):
        for given in (values, np.asfortranarray(values), values[::-1, ::-1]):
            found = np.concatenate(list(count_blocks(given, layout)))
            alone = [count(column, layout)[0] for column in given.T]
            assert found.dtype == np.uint32
            np.testing.assert_array_equal(found, alone)

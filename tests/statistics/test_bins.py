"""Layouts: edges follow from the number formats, whatever was counted."""

from __future__ import annotations

import numpy as np
import pytest

from taqstore.errors import TaqError
from taqstore.statistics.bins import Layout

LAYOUTS = [Layout(d, m) for d in ("float16", "float32") for m in (0, 1, 3, 5, 7, 10)]


def ieee_edge(prefix: int, mantissa_bits: int, bias: int) -> float:
    """Edge of |x| from the definition of binary floating point."""
    exponent, mantissa = divmod(prefix, 1 << mantissa_bits)
    if exponent == 0:
        return mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


def test_number_of_bins() -> None:
    assert Layout().bins == 1984
    assert Layout("float16", 10).bins == 63488
    assert Layout("float32", 5).bins == 16320
    assert len({layout.bins for layout in LAYOUTS}) == len(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_edges_are_those_of_the_format(layout: Layout) -> None:
    bias = {"float16": 15, "float32": 127}[layout.dtype]
    prefixes = range(0, layout.zero_bin + 1, max(1, layout.zero_bin // 997))
    magnitude = layout.magnitude_edges()
    assert [ieee_edge(p, layout.mantissa_bits, bias) for p in prefixes] == [
        magnitude[p] for p in prefixes
    ]
    edges = layout.edges()
    assert edges.shape == (layout.bins + 1,)
    assert np.all(np.diff(edges) > 0)
    assert edges[layout.zero_bin] == 0
    assert np.array_equal(edges, -edges[::-1])
    assert np.array_equal(layout.left, edges[:-1])
    assert np.array_equal(layout.right, edges[1:])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_relative_width_is_a_power_of_two(layout: Layout) -> None:
    normal = layout.magnitude_edges()[1 << layout.mantissa_bits :]
    assert np.all(np.diff(normal) / normal[:-1] <= 2.0**-layout.mantissa_bits)


@pytest.mark.parametrize("mantissa_bits", [0, 5, 9, 10])
def test_representable_values_are_the_extremes_of_all_float16_values(mantissa_bits: int) -> None:
    layout = Layout("float16", mantissa_bits)
    every = np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(float)
    positive = every[: 31 << 10].reshape(layout.zero_bin, -1)
    low, high = layout.representable()
    zero = layout.zero_bin
    assert np.array_equal(low[zero:], positive.min(axis=1))
    assert np.array_equal(high[zero:], positive.max(axis=1))
    assert np.array_equal(low[:zero], -positive.max(axis=1)[::-1])
    assert np.array_equal(high[: zero - 1], -positive.min(axis=1)[:0:-1])
    assert high[zero - 1] == (0.0 if mantissa_bits == 10 else -(2.0**-24))


def test_attributes_name_the_layout() -> None:
    assert Layout("float32", 3).attrs == {"layout": "float32", "mantissa_bits": 3}


@pytest.mark.parametrize(
    ("dtype", "bits", "message"),
    [
        ("bfloat16", 5, r"'bfloat16' is not known; did you mean float16\?"),
        ("float16", 11, "mantissa_bits must be 0 to 10 .found 11."),
        ("float16", -1, "mantissa_bits"),
    ],
)
def test_unknown_layouts_are_refused(dtype: str, bits: int, message: str) -> None:
    with pytest.raises(TaqError, match=message):
        Layout(dtype, bits)


@pytest.mark.parametrize(
    "counts", [np.zeros(1983, int), np.zeros(1984), np.zeros((1984, 2), int), np.int64(3)]
)
def test_counts_of_another_layout_are_refused(counts: np.ndarray) -> None:
    with pytest.raises(TaqError, match=r"float16 histogram with 5 mantissa bits: .*1984"):
        Layout().checked(counts)

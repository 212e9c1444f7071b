"""Observations: against two-pass NumPy in float64, however the tensor is cut."""

from __future__ import annotations

import hashlib
import tracemalloc
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support import oracle
from taqstore.errors import TaqError
from taqstore.statistics import histogram
from taqstore.statistics import observation as statistics
from taqstore.statistics.histogram import Layout
from taqstore.statistics.observation import Accumulator, Observation, merge, observe, observe_each

quick = settings(max_examples=60, deadline=None)

rows_and_channels = st.tuples(st.integers(0, 20), st.integers(1, 4))
# Every bit pattern: NaN payloads, infinities, subnormals, both zeros.
any_tensors = st.one_of(
    hnp.arrays(np.uint16, rows_and_channels).map(lambda bits: bits.view(np.float16)),
    hnp.arrays(np.uint32, rows_and_channels).map(lambda bits: bits.view(np.float32)),
)


def assert_same(a: Observation, b: Observation) -> None:
    """Equal to the last bit where merging is exact, to rounding in the moments."""
    assert a.layout == b.layout
    assert a.count == b.count
    for name in ("finite", "min", "max", "histogram", "nonfinite"):
        found, expected = getattr(a, name), getattr(b, name)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"), name
    reach = np.fmax(np.abs(a.min), np.abs(a.max)).astype(float)
    assert np.all((np.abs(a.mean - b.mean) <= 1e-13 * reach) | np.isnan(reach))
    assert np.all((np.abs(a.m2 - b.m2) <= 1e-12 * reach**2 * a.finite) | np.isnan(reach))
    assert np.array_equal(np.isnan(a.m2), np.isnan(b.m2))


@quick
@given(any_tensors)
def test_observation_is_what_numpy_finds_channel_by_channel(x: np.ndarray) -> None:
    seen = observe(x)
    assert seen.count == len(x)
    assert seen.min.dtype == seen.max.dtype == x.dtype
    for channel, column in enumerate(x.T):
        finite = column[np.isfinite(column)].astype(np.float64)
        assert seen.finite[channel] == finite.size
        found = [float(v[channel]) for v in (seen.min, seen.max, seen.mean, seen.m2)]
        if not finite.size:
            assert np.isnan(found).all()
            continue
        reach = np.abs(finite).max()
        assert found[:2] == [finite.min(), finite.max()]
        assert found[2] == pytest.approx(finite.mean(), rel=0, abs=1e-13 * reach)
        m2 = np.square(finite - finite.mean()).sum()
        assert found[3] == pytest.approx(m2, rel=0, abs=1e-12 * finite.size * reach**2)
    counts, nonfinite = histogram.count(x, seen.layout)
    assert np.array_equal(seen.histogram, counts)
    assert np.array_equal(seen.nonfinite, nonfinite)


@quick
@given(any_tensors, st.integers(1, 7), st.integers(0, 20))
def test_how_a_tensor_is_cut_does_not_matter(x: np.ndarray, chunk_rows: int, cut: int) -> None:
    whole = observe(x)
    assert_same(observe(x, chunk_rows=chunk_rows), whole)
    assert_same(merge(observe(x[:cut]), observe(x[cut:])), whole)
    pieces = Accumulator()
    for piece in (x[:cut], x[cut:]):
        pieces.update(piece)
    assert_same(pieces.result(), whole)


@quick
@given(any_tensors, st.integers(0, 20), st.integers(0, 20))
def test_merging_is_associative_and_commutative(x: np.ndarray, i: int, j: int) -> None:
    a, b, c = (observe(part) for part in np.split(x, sorted((i, j))))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert_same(merge(a, b), merge(b, a))


@quick
@given(any_tensors, st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(x: np.ndarray, random: object) -> None:
    order = list(range(len(x)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert_same(observe(x[order], chunk_rows=3), observe(x, chunk_rows=3))


@quick
@given(any_tensors)
def test_negation_swaps_the_extremes(x: np.ndarray) -> None:
    seen, negated = observe(x), observe(-x)
    assert np.array_equal(negated.min, -seen.max, equal_nan=True)
    assert np.array_equal(negated.max, -seen.min, equal_nan=True)
    assert np.array_equal(negated.mean, -seen.mean, equal_nan=True)
    assert np.array_equal(negated.m2, seen.m2, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4"])
def test_leading_axes_and_strides(dtype: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 9, 1, 5, 6)).astype(dtype)
    flat = observe(x.reshape(-1, 6))
    awkward = [x, x.transpose(3, 1, 0, 2, 4), x[::-1, :, :, ::-1], x.copy("F"), x[0, 0, 0, 0]]
    for view in awkward[:-1]:
        assert_same(observe(view, chunk_rows=4), flat)
    assert_same(observe(x[..., ::2]), observe(x[..., ::2].copy().reshape(-1, 3)))
    assert_same(observe(awkward[-1]), observe(x[0, 0, 0].reshape(-1, 6)[:1]))


@quick
@given(st.lists(any_tensors, max_size=9), st.randoms())
def test_many_observed_together_are_as_each_alone(xs: list[np.ndarray], random: Random) -> None:
    together = observe_each(xs, mantissa_bits=3)
    assert len(together) == len(xs)
    for found, x in zip(together, xs, strict=True):
        assert_same(found, observe(x, mantissa_bits=3))
    # To the last bit whatever else there is.
    order = random.sample(range(len(xs)), len(xs))
    for found, index in zip(observe_each([xs[i] for i in order], mantissa_bits=3), order,
                            strict=True):  # fmt: skip
        for name, values in vars(found).items():
            assert str(values) == str(getattr(together[index], name)), name


def test_alike_tensors_share_a_pass_and_large_ones_do_not() -> None:
    rng = np.random.default_rng(8)
    small = [rng.standard_t(3, (2, 5, 1, 7)).astype(np.float32) - 3 for _ in range(4)]
    large = rng.standard_normal((statistics.BLOCK // 16 + 3, 16), np.float32)
    broken = small[2].copy()
    broken[1, 3, 0, 4] = np.nan
    xs = [small[0], large, small[1].transpose(1, 0, 2, 3), broken, small[2], small[3]]
    for found, x in zip(observe_each(xs), xs, strict=True):
        assert_same(found, observe(x))
    alone = observe_each(xs[-1:])[0]
    assert (alone.m2 == observe_each(xs)[-1].m2).all()
    assert observe_each([]) == []


def test_moments_survive_a_large_shift() -> None:
    """Float32 sums of squares would be off by 1e-3 here."""
    rng = np.random.default_rng(11)
    x = (rng.normal(0, 9, (20_000, 3)) + np.array([0, 254, -3e4])).astype(np.float32)
    seen = observe(x)
    exact = x.astype(np.float64)
    assert seen.std**2 == pytest.approx(exact.var(axis=0), rel=1e-13)
    assert seen.mean == pytest.approx(exact.mean(axis=0), rel=1e-13)


def test_unsound_values_are_counted_and_left_out() -> None:
    x = np.array([[1, np.nan, -np.inf], [3, np.inf, np.nan], [np.inf, -2, np.inf]], np.float16)
    seen = observe(x)
    assert (seen.count, seen.nonfinite.tolist()) == (3, [2, 3, 1])
    assert seen.finite.tolist() == [2, 1, 0]
    assert seen.min.tolist()[:2] == [1, -2]
    assert seen.max.tolist()[:2] == [3, -2]
    assert seen.m2.tolist()[:2] == [2, 0]
    assert np.isnan([seen.min[2], seen.max[2], seen.mean[2], seen.m2[2]]).all()
    assert (seen.tensor_min, seen.tensor_max) == (-2, 3)
    assert seen.histogram.sum() == 3


def test_variables_have_the_names_and_dtypes_of_the_store() -> None:
    huge = np.full((2, 1), 3e38, np.float32) * np.array([[1], [-1]], np.float32)
    for x, dtype in ((np.ones((5, 3), np.float16), "f2"), (huge, "f4")):
        stored = observe(x, mantissa_bits=3).variables()
        assert {name: array.dtype.str[1:] for name, array in stored.items()} == {
            "min": dtype, "max": dtype, "count": "i8", "mean": "f4", "m2": "f4",
            "tensor_min": dtype, "tensor_max": dtype, "histogram": "u4", "nonfinite": "u8",
        }  # fmt: skip
        assert stored["count"].shape == stored["tensor_min"].shape == ()
        assert stored["histogram"].shape == (
            Layout({"f2": "float16"}.get(dtype, "float32"), 3).bins,
        )
    assert stored["m2"].tolist() == [np.inf]


@pytest.mark.parametrize("strided", [False, True])
def test_memory_does_not_grow_with_the_tensor(strided: bool) -> None:
    x = np.ones((2, 1500, 1, 1000), np.float32)
    view = x.transpose(1, 0, 2, 3) if strided else x
    tracemalloc.start()
    observe(view)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8 * statistics.BLOCK < x.nbytes


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 2)), "must be float16 or float32 .found float64.; widen bfloat16"),
        (np.zeros((2, 2), np.uint16), "must be float16 or float32"),
        (np.float32(1), r"needs a channel axis .found shape \(\)"),
        (np.zeros((4, 0), np.float32), "needs a channel axis"),
    ],
)
def test_what_is_no_activation_tensor_is_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(TaqError, match=message):
        observe(x)


def test_different_tensors_do_not_merge() -> None:
    pieces = Accumulator()
    with pytest.raises(TaqError, match="no tensor was observed"):
        pieces.result()
    pieces.update(np.ones((2, 3), np.float16))
    for other in (np.ones((2, 4), np.float16), np.ones((2, 3), np.float32)):
        with pytest.raises(TaqError, match="3 channels of float16 with 5 mantissa bits and"):
            pieces.update(other)
    assert pieces.result().count == 2
    with pytest.raises(TaqError, match="chunk_rows must be positive"):
        observe(np.ones((2, 3), np.float16), chunk_rows=0)


def test_frozen_tensor_statistics() -> None:
    """Values of the exact data, computed once elsewhere."""
    x = oracle.tensor()
    assert hashlib.sha256(x.tobytes()).hexdigest() == oracle.SHA256
    # One channel over all elements, so that the rollups are those of the whole tensor.
    seen = observe(x.reshape(-1, 1))
    assert seen.mean == pytest.approx([0.474147562], rel=2e-9)
    assert seen.std == pytest.approx([4.67113894], rel=2e-9)
    per_channel = observe(x, chunk_rows=100)
    assert per_channel.count == oracle.BATCHES * oracle.TOKENS
    assert per_channel.tensor_min == np.float32(-150.057098)
    assert per_channel.tensor_max == np.float32(257.00415)
    pooled = Accumulator()
    for batch in x:
        pooled.update(batch)
    assert_same(pooled.result(), per_channel)


@pytest.mark.parametrize(("word", "bits"), [(np.uint16, 0x7C01), (np.uint32, 0x7F800001)])
def test_signalling_nan_is_a_nan_like_any_other(word: type[np.unsignedinteger], bits: int) -> None:
    x = np.full((20, 2), bits, word).view(f"f{np.dtype(word).itemsize}")
    seen = observe(np.concatenate([x, np.ones_like(x)]))
    assert seen.nonfinite.tolist() == [40, 0, 0]
    assert seen.mean.tolist() == [1, 1]
    counts, nonfinite = histogram.count(x, Layout("float16"))
    assert (counts.sum(), nonfinite.tolist()) == (0, [40, 0, 0])

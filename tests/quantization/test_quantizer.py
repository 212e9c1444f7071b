"""Step sizes, zero points, rounding: against exact arithmetic and results of other tools."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import oracle
from taqstore.errors import TaqError
from taqstore.quantization.quantizer import Quantizer, affine, integer_range, symmetric
from taqstore.statistics import moving_average as replay

quick = settings(max_examples=100, deadline=None)
moderate = st.floats(-100, 100)


def naive(x: float, quantizer: Quantizer) -> int:
    """Round a ratio half to even in exact arithmetic, then clamp."""
    level = round(Fraction(x / float(quantizer.step_size)))
    return min(max(level + int(quantizer.zero_point), quantizer.qmin), quantizer.qmax)


def test_integer_ranges() -> None:
    assert integer_range(8) == (-128, 127)
    assert integer_range(4, narrow_range=True) == (-7, 7)
    assert integer_range(8, signed=False) == (0, 255)
    assert integer_range(2) == (-2, 1)
    for bits in (1, 17):
        with pytest.raises(TaqError, match=f"bits must be 2 to 16 .found {bits}."):
            integer_range(bits)


@quick
@given(moderate, st.floats(0.01, 50), st.integers(2, 8), st.booleans())
def test_symmetric_against_exact_arithmetic(
    x: float, alpha: float, bits: int, narrow_range: bool
) -> None:
    quantizer = symmetric(alpha, bits=bits, narrow_range=narrow_range)
    assert quantizer.step_size == alpha / (2 ** (bits - 1) - 1)
    q = naive(x, quantizer)
    assert quantizer.quantize(x) == q
    assert quantizer.dequantize(q) == q * quantizer.step_size
    assert quantizer.fake_quantize(x) == q * quantizer.step_size


@quick
@given(moderate, moderate, moderate, st.integers(2, 8), st.booleans())
def test_affine_against_exact_arithmetic(
    x: float, a: float, b: float, bits: int, signed: bool
) -> None:
    low, high = min(a, b), max(a, b)
    if max(high, 0) - min(low, 0) < 1e-6:
        return
    quantizer = affine(low, high, bits=bits, signed=signed)
    step = (max(high, 0) - min(low, 0)) / (2**bits - 1)
    qmin, qmax = integer_range(bits, signed=signed)
    assert quantizer.step_size == step
    assert quantizer.zero_point == min(max(qmin - round(min(low, 0) / step), qmin), qmax)
    assert quantizer.fake_quantize(x) == (naive(x, quantizer) - quantizer.zero_point) * step
    assert quantizer.fake_quantize(0.0) == 0


def test_rounding_is_half_to_even() -> None:
    unit = symmetric(7.0, bits=4)
    assert unit.fake_quantize([0.5, 1.5, 2.5, -0.5, -1.5, -2.5]).tolist() == [0, 2, 2, 0, -2, -2]
    assert unit.fake_quantize([7.6, -7.6, -9.0, np.inf]).tolist() == [7, -8, -8, 7]
    assert symmetric(7.0, bits=4, narrow_range=True).fake_quantize(-9.0) == -7


def test_per_channel_bounds_broadcast_and_dtypes_are_kept() -> None:
    x = np.array([[1, 2], [3, 4], [-5, -6]], np.float32)
    quantizer = symmetric(np.abs(x).max(axis=0), bits=4)
    assert quantizer.step_size.dtype == quantizer.fake_quantize(x).dtype == np.float32
    for channel in (0, 1):
        alone = symmetric(np.abs(x[:, channel]).max(), bits=4)
        assert np.array_equal(
            quantizer.fake_quantize(x)[:, channel], alone.fake_quantize(x[:, channel])
        )
    assert symmetric(np.float16(3)).step_size.dtype == np.float32
    assert affine(np.float16(-3), np.float16(3)).step_size.dtype == np.float32


def test_nothing_but_zero_and_nothing_known() -> None:
    for quantizer in (
        symmetric([0.0, 1.0, np.nan]),
        affine([0.0, 0.0, np.nan], [0.0, 255.0, np.nan]),
    ):
        assert quantizer.step_size[0] == 0
        assert np.isnan(quantizer.step_size[2])
        assert quantizer.zero_point.tolist() == [0, 0, 0]
        assert quantizer.fake_quantize(np.zeros(3)).tolist()[:2] == [0, 0]
        assert np.isnan(quantizer.fake_quantize(np.ones(3))[2])
        assert quantizer.fake_quantize(np.ones(3))[0] == 0
    assert np.isnan(symmetric(1.0).fake_quantize(np.nan))


def test_misuse_is_refused() -> None:
    with pytest.raises(TaqError, match=r"alpha cannot be negative \(found -1\.0\)"):
        symmetric([1.0, -1.0])
    with pytest.raises(TaqError, match="low end above its high end"):
        affine([0.0, 2.0], [1.0, 1.0])


def test_frozen_torch_observers() -> None:
    """MinMax and MovingAverageMinMax, quint8 affine: step sizes to the bit, zero points equal."""
    x = oracle.tensor()
    whole = affine(x.min(), x.max())
    assert whole.step_size == np.float32(1.5963186)
    assert whole.zero_point == 94
    low, high = x.min(axis=(1, 2)), x.max(axis=(1, 2))
    moving = affine(replay.ema_float32(low, 0.05), replay.ema_float32(high, 0.05))
    assert moving.step_size == np.float32(0.398930311)
    assert moving.zero_point == 117
    low, high = x.min(axis=1), x.max(axis=1)
    channels = affine(replay.ema_float32(low, 0.05), replay.ema_float32(high, 0.05))
    assert channels.zero_point[:4].tolist() == [129, 100, 227, 75]


def test_frozen_torch_symmetric_steps() -> None:
    """Torch divides by half of the whole range (127.5), the convention here by qmax (127)."""
    x = oracle.tensor()
    torch_step = symmetric(np.abs(x).max()).step_size * 127 / 127.5
    assert torch_step == pytest.approx(2.01571894, rel=1e-7)
    steps = symmetric(np.abs(x).max(axis=(0, 1))).step_size[:4] * 127 / 127.5
    frozen = [0.824759305, 0.173328340, 0.035395738, 0.133730307]
    assert steps == pytest.approx(frozen, rel=2e-7)


def error(x: np.ndarray, quantizer: Quantizer) -> float:
    return float(np.square(x - quantizer.fake_quantize(x)).mean())


@pytest.mark.parametrize(("bits", "share", "least"), [(4, 11, 3.31868822), (8, 76, 0.262621603)])
def test_frozen_brute_force_of_symmetric_clips(bits: int, share: int, least: float) -> None:
    x = oracle.tensor().astype(np.float64)
    absmax = np.abs(x).max()
    near = range(share - 6, share + 7)
    errors = {g: error(x, symmetric(g / 100 * absmax, bits=bits)) for g in near}
    assert min(errors, key=errors.__getitem__) == share
    assert errors[share] == pytest.approx(least, rel=2e-9)


def test_frozen_narrow_range_error() -> None:
    x = oracle.tensor().astype(np.float64)
    narrow = symmetric(0.11 * np.abs(x).max(), bits=4, narrow_range=True)
    assert error(x, narrow) == pytest.approx(3.4566, abs=5e-5)


@pytest.mark.parametrize(
    ("low", "high", "four", "eight"),
    [
        (-150.057098, 257.00415, 11.46, 0.219),
        (-46.6011505, 55.1260757, 4.13, 1.102),
        (-41.2041664, 41.2041664, 3.61, 1.410),
    ],
    ids=["min-max", "moving average", "onnxruntime percentile"],
)
def test_frozen_errors_of_other_tools_ranges(
    low: float, high: float, four: float, eight: float
) -> None:
    x = oracle.tensor().astype(np.float64)
    assert error(x, affine(low, high, bits=4)) == pytest.approx(four, abs=5e-3)
    assert error(x, affine(low, high, bits=8)) == pytest.approx(eight, abs=5e-4)


@pytest.mark.parametrize(
    ("bits", "low", "high", "least", "digits"),
    [(4, -28.511, 33.411, 3.2929, 5e-5), (8, -118.545, 223.594, 0.18817, 5e-6)],
)
def test_frozen_best_affine_ranges(
    bits: int, low: float, high: float, least: float, digits: float
) -> None:
    x = oracle.tensor().astype(np.float64)
    assert error(x, affine(low, high, bits=bits)) == pytest.approx(least, abs=digits)

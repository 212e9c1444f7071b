"""The entropy rule: against onnxruntime's frozen result and the rule written out plainly."""

from __future__ import annotations

import numpy as np
import pytest

from support import oracle
from taqstore.quantization.entropy import entropy_range, linear_counts
from taqstore.quantization.spread import Spread
from taqstore.statistics import histogram
from taqstore.statistics.bins import Layout

ORT = (-48.4392548, 48.6902466)


def smoothed(counts: np.ndarray) -> np.ndarray:
    zeros = counts == 0
    taken = 1e-4 * zeros.sum() / (~zeros).sum()
    smooth = np.where(zeros, 1e-4, counts - taken)
    return smooth / smooth.sum()


def divergence(counts: np.ndarray, start: int, stop: int) -> float:
    """KL divergence of one cut, bin by bin."""
    cut = counts[start:stop]
    p = cut.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    merged = cut.size // 128
    q = np.zeros(cut.size, np.int64)
    for level in range(128):
        part = slice(level * merged, (level + 1) * merged)
        mass = cut[part].sum() + (cut[128 * merged :].sum() if level == 127 else 0)
        if np.count_nonzero(p[part]):
            q[part] = mass // np.count_nonzero(p[part])
    if not q.any():
        return np.inf
    p, q = smoothed(p), smoothed(q)
    return float((p * np.log(p / q)).sum())


def plain_range(counts: np.ndarray, absmax: float) -> tuple[float, float]:
    halves = range(64, 1025)
    found = [divergence(counts, 1024 - h, min(1025 + h, 2048)) for h in halves]
    half = 64 + int(np.argmin(found))
    width = 2 * absmax / 2048
    return -half * width, min((half + 1) * width, absmax)


def test_onnxruntime_on_its_own_bins() -> None:
    x = oracle.tensor()
    absmax = float(np.abs(x).max())
    counts, _ = np.histogram(x, 2048, range=(-absmax, absmax))
    low, high = entropy_range(counts[None], np.array([absmax]))
    assert (low.item(), high.item()) == pytest.approx(ORT, rel=1e-6)


@pytest.mark.parametrize(("mantissa_bits", "tolerance"), [(5, 2**-5), (7, 2**-7), (9, 1e-6)])
def test_onnxruntime_from_stored_bins(mantissa_bits: int, tolerance: float) -> None:
    """Within the relative width of a stored bin."""
    layout = Layout("float32", mantissa_bits)
    absmax = np.abs(oracle.tensor()).max(keepdims=True).ravel().astype(np.float64)
    counts = histogram.count(oracle.tensor(), layout)[0][None]
    low, high = entropy_range(linear_counts(counts, Spread.of(layout), absmax), absmax)
    assert (low.item(), high.item()) == pytest.approx(ORT, rel=tolerance)


def test_rows_agree_with_the_plain_rule() -> None:
    rng = np.random.default_rng(3)
    rows, absmax = [], []
    for size in (3000, 9000):
        x = rng.standard_t(3, size=size) * np.exp(rng.normal())
        absmax.append(np.abs(x).max())
        rows.append(np.histogram(x, 2048, range=(-absmax[-1], absmax[-1]))[0])
    rows.append(np.zeros(2048, np.int64))
    low, high = entropy_range(np.array(rows), np.array([*absmax, np.nan]))
    for row in range(2):
        assert (low[row], high[row]) == pytest.approx(
            plain_range(rows[row], absmax[row]), rel=1e-12
        )
    assert np.isnan([low[2], high[2]]).all()


def test_linear_bins_are_those_of_numpy_where_bins_hold_one_value() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_cauchy(5000).clip(-300, 200).astype(np.float16)
    layout = Layout("float16", 10)
    counts, _ = histogram.count(x, layout)
    absmax = float(np.abs(x).max())
    got = linear_counts(counts[None], Spread.of(layout), np.array([absmax]))[0]
    expected, _ = np.histogram(x.astype(np.float64), 2048, range=(-absmax, absmax))
    np.testing.assert_array_equal(got, expected)
    assert not linear_counts(0 * counts[None], Spread.of(layout), np.array([np.nan])).any()

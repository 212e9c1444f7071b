"""Rules against the collectors of NNCF, run live where it is installed (it needs no torch)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import oracle
from support.oracle import group
from taqstore.analysis import scales
from taqstore.statistics.bins import Layout

with_nncf = pytest.importorskip("nncf.tensor", exc_type=ImportError)
collectors = pytest.importorskip("nncf.common.tensor_statistics.collectors", exc_type=ImportError)

pytestmark = pytest.mark.oracle

TENSORS = oracle.tensors()
HALVES = Layout("float16", 10)
TOKENS = 0  # axis of a batch (token, channel) that a range per channel reduces
every_tensor = pytest.mark.parametrize("x", TENSORS.values(), ids=TENSORS)


def collected(x: np.ndarray, reducer: Any, aggregator: Any) -> Any:
    """What one branch makes of the batches, without axes of length 1."""
    collector = collectors.TensorCollector()
    collector.register_statistic_branch("it", reducer, aggregator)
    for batch in x:
        collector.register_input_for_all_reducers(with_nncf.Tensor(batch))
    found = collector.get_statistics()["it"]
    if isinstance(found, dict):
        return {key: np.squeeze(value.data) for key, value in found.items()}
    return np.squeeze(found.data)


@every_tensor
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_min_max(x: np.ndarray, per: str) -> None:
    axes = None if per == "tensor" else (TOKENS,)
    low = collected(x, collectors.MinReducer(axes), collectors.MinAggregator())
    high = collected(x, collectors.MaxReducer(axes), collectors.MaxAggregator())
    got = scales(group(x), clip="minmax", symmetric=False, per=per)
    np.testing.assert_array_equal(np.squeeze(got["lower"].values), low)
    np.testing.assert_array_equal(np.squeeze(got["upper"].values), high)


@every_tensor
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_mean_of_extrema(x: np.ndarray, per: str) -> None:
    """They average in float32."""
    axes = None if per == "tensor" else (TOKENS,)
    low = collected(x, collectors.MinReducer(axes), collectors.MeanAggregator())
    high = collected(x, collectors.MaxReducer(axes), collectors.MeanAggregator())
    got = scales(group(x), clip="average", symmetric=False, per=per)
    np.testing.assert_allclose(np.squeeze(got["lower"].values), low, rtol=5e-7)
    np.testing.assert_allclose(np.squeeze(got["upper"].values), high, rtol=5e-7)


def halves(x: np.ndarray) -> np.ndarray:
    """Values that a histogram of 10 mantissa bits holds exactly."""
    return x.astype(np.float16).astype(np.float32)


@every_tensor
@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_mean_of_percentiles(x: np.ndarray, percentile: float) -> None:
    share = percentile / 100
    x = halves(x)
    reducers = [
        collectors.QuantileReducer(quantile=(1 - share,)),
        collectors.QuantileReducer(quantile=(share,)),
        collectors.AbsQuantileReducer(quantile=(share,)),
    ]
    low, high, alpha = (collected(x, each, collectors.MeanAggregator()) for each in reducers)
    data = group(x, HALVES)
    got = scales(data, clip="mean_percentile", percentile=percentile, symmetric=False)
    assert got["lower"].item() == pytest.approx(low.item(), rel=1e-6)
    assert got["upper"].item() == pytest.approx(high.item(), rel=1e-6)
    got = scales(data, clip="mean_percentile", percentile=percentile)
    assert got["alpha"].item() == pytest.approx(alpha.item(), rel=1e-6)


@every_tensor
@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentiles_of_all_batches(x: np.ndarray, percentile: float) -> None:
    x = halves(x)
    tails = [round(100 - percentile, 10), percentile]
    aggregator = collectors.PercentileAggregator(tails, aggregation_axes=(0, 1, 2))
    found = collected(x, collectors.RawReducer(), aggregator)
    got = scales(group(x, HALVES), clip="percentile", percentile=percentile, symmetric=False)
    assert got["lower"].item() == pytest.approx(found[tails[0]].item(), rel=1e-6)
    assert got["upper"].item() == pytest.approx(found[tails[1]].item(), rel=1e-6)

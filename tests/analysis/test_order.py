"""Order sensitivity against every order taken one after the other."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from support.oracle import tensor
from support.statistics_synthetic import STEPS, activations, observed
from taqstore.analysis import order
from taqstore.analysis.order import order_weights
from taqstore.errors import MissingError, TaqError
from taqstore.statistics.moving_average import ema_midpoint

MOMENTUM = 0.9


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc2", activations("mlp.fc2"), mantissa_bits=0)


def test_all_orders_of_four_batches(group: xr.Dataset) -> None:
    got = order(group, momentum=MOMENTUM, orders=24)
    assert got.attrs["orders"] == 24
    low, high = (group[name].values.astype(np.float64) for name in ("min", "max"))
    every = [
        ema_midpoint(low[list(p)], high[list(p)], momentum=MOMENTUM, dtype=np.float64)
        for p in permutations(range(4))
    ]
    spread = np.max(every, axis=0) - np.min(every, axis=0)
    np.testing.assert_allclose(got["shift_spread"], spread, rtol=1e-12, atol=1e-15)
    width = high.max(axis=0) - low.min(axis=0)
    share = np.where(width > 0, spread / np.where(width > 0, width, 1), 0)
    np.testing.assert_allclose(got["shift_spread_share"], share, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(got["shift_spread_share_max"], share.max(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(got["shift_spread_share_mean"], share.mean(axis=-1), rtol=1e-12)


def test_clip_bounds_of_tensors(group: xr.Dataset) -> None:
    got = order(group, momentum=MOMENTUM, orders=24)
    low, high = (group[f"tensor_{name}"].values.astype(np.float64) for name in ("min", "max"))

    def ema(values: np.ndarray) -> np.ndarray:
        return ema_midpoint(values, values, momentum=MOMENTUM, dtype=np.float64)

    every = [
        np.maximum(abs(ema(low[list(p)])), abs(ema(high[list(p)]))) for p in permutations(range(4))
    ]
    np.testing.assert_allclose(got["alpha"], every[0], rtol=1e-12)
    np.testing.assert_allclose(got["alpha_low"], np.min(every, axis=0), rtol=1e-12)
    np.testing.assert_allclose(got["alpha_high"], np.max(every, axis=0), rtol=1e-12)
    bare = order(group.drop_vars(["tensor_min", "tensor_max"]), momentum=MOMENTUM, orders=24)
    xr.testing.assert_allclose(bare, got, rtol=1e-14)


@settings(deadline=None)
@given(st.permutations(range(4)), st.floats(0, 1, exclude_max=True))
def test_all_orders_do_not_depend_on_the_stored_one(batches: list[int], momentum: float) -> None:
    one = observed("mlp.fc1", activations("mlp.fc1", layers=2), mantissa_bits=0).isel(step=[0, 5])
    names = ["shift_spread", "alpha_low", "alpha_high"]
    first = order(one, momentum=momentum, orders=24)[names]
    second = order(one.isel(batch=batches), momentum=momentum, orders=24)[names]
    xr.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-13)


def test_fewer_orders_than_there_are_begin_with_the_stored_one_and_follow_the_seed() -> None:
    weights = order_weights(9, momentum=0.5, orders=6, seed=3)
    assert weights.shape == (6, 9)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-15)
    assert weights[0].tolist() == [0.5**8, *(0.5 ** (9 - k) for k in range(1, 9))]
    again = order_weights(9, momentum=0.5, orders=6, seed=3)
    np.testing.assert_array_equal(weights, again)
    assert not np.array_equal(weights, order_weights(9, momentum=0.5, orders=6, seed=4))


def test_more_orders_never_spread_less(group: xr.Dataset) -> None:
    few, many = (order(group, orders=n, seed=1)["shift_spread"] for n in (5, 9))
    assert (many >= few).all()


def test_seeded_orders_of_a_drifting_run() -> None:
    """16 batches, 20 orders: each order's weights replayed as the rule itself takes batches."""
    x = tensor()
    dims = ("batch", "step", "layer", "channel")
    low, high = (e.astype(np.float64)[:, None, None] for e in (x.min(axis=1), x.max(axis=1)))
    group = xr.Dataset(
        {"min": (dims, low), "max": (dims, high)},
        {"batch": range(16), "step": [0], "layer": ["mm0.img"]},
    )
    rng = np.random.default_rng(0)
    orders = [np.arange(16), *(rng.permutation(16) for _ in range(19))]
    every = [ema_midpoint(low[o], high[o], dtype=np.float64) for o in orders]
    expected = (np.max(every, axis=0) - np.min(every, axis=0)) / (high.max(0) - low.min(0))
    got = order(group, orders=20)["shift_spread_share"]
    np.testing.assert_allclose(got.values, expected, rtol=1e-11)
    assert expected.max() > 0.1  # it matters: over a tenth of the range


def test_one_batch_has_one_order(group: xr.Dataset) -> None:
    got = order(group.isel(batch=[2]))
    assert got.attrs["orders"] == 1
    assert (got["shift_spread"] == 0).all()
    assert got["alpha_spread_share"].shape == (len(STEPS), 3)


def test_an_unknown_batch_makes_the_channel_unknown(group: xr.Dataset) -> None:
    broken = group.copy(deep=True)
    broken["min"][1, 2, 0, 3] = np.nan
    spread = order(broken)["shift_spread"]
    assert np.argwhere(np.isnan(spread.values)).tolist() == [[2, 0, 3]]


def test_refusals(group: xr.Dataset) -> None:
    with pytest.raises(MissingError, match=r"order needs min with max with batch"):
        order(group.max("batch"))
    with pytest.raises(TaqError, match="orders must be 1 to 10000"):
        order(group, orders=0)
    with pytest.raises(TaqError, match="momentum must be at least 0, below 1"):
        order(group, momentum=1.5)


def test_lazy_and_equal(group: xr.Dataset) -> None:
    lazy = order(group.chunk({"batch": 1}), orders=7)
    assert all(variable.chunks for variable in lazy.data_vars.values())
    loaded = lazy.compute(scheduler="synchronous")
    xr.testing.assert_allclose(loaded, order(group, orders=7), rtol=1e-13, atol=1e-15)

"""No percentile lies beyond the values that were seen, and the last one is the last of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from support.planted import STEPS, fill, planted_store, put, tensors
from support.statistics_synthetic import activations, observed
from taqstore.analysis import curve, error, pool, scales
from taqstore.analysis.ranges.rules import RULES
from taqstore.store.reader import open_store

X = activations("mlp.fc1")  # batch, step, layer, row, channel
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.999, 100.0)


@pytest.fixture(scope="module", params=[0, 3, 10])
def group(request: pytest.FixtureRequest) -> xr.Dataset:
    return observed("mlp.fc1", X, mantissa_bits=request.param)


def ends(axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    wide = X.astype(np.float64)
    return wide.min(axis=axes), wide.max(axis=axes)


@pytest.mark.parametrize("cuts", [None, "static"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("percentile", PERCENTILES)
def test_scales_stay_inside(
    group: xr.Dataset, percentile: float, symmetric: bool, cuts: None
) -> None:
    got = scales(group, clip="percentile", percentile=percentile, symmetric=symmetric, cuts=cuts)
    low, high = ends((0, 3, 4) if cuts is None else (0, 1, 3, 4))
    if symmetric:
        low = -(high := np.maximum(abs(low), abs(high)))
    lower, upper = (np.squeeze(got[name].values) for name in ("lower", "upper"))
    assert (lower >= low).all()
    assert (upper <= high).all()
    if percentile == 100.0:
        np.testing.assert_array_equal(lower, low)
        np.testing.assert_array_equal(upper, high)


def test_error_and_curve_stay_inside(group: xr.Dataset) -> None:
    low, high = ends((0, 3, 4))
    absmax = np.maximum(abs(low), abs(high))
    priced = error(group, clip="percentile", percentile=100.0)
    np.testing.assert_array_equal(priced["alpha"], absmax)
    np.testing.assert_array_equal(priced["error"], error(group, clip="absmax")["error"])
    marked = curve(group, percentile=100.0, rules=["percentile", "mean_percentile"])
    upper = marked["rule_upper"].transpose("rule", "step", "layer").values
    np.testing.assert_array_equal(upper[0], absmax)
    assert (upper[1] <= absmax).all()


def test_the_mean_of_percentiles_of_calls_is_that_of_their_extrema(group: xr.Dataset) -> None:
    low, high = ends((3, 4))
    got = scales(group, clip="mean_percentile", percentile=100.0, symmetric=False)
    np.testing.assert_allclose(got["lower"], low.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(got["upper"], high.mean(axis=0), rtol=1e-14)


def test_pooled_tails_stay_inside_what_was_seen(group: xr.Dataset) -> None:
    low, high = ends((0, 3, 4))
    tails = pool(group)
    assert (tails["hist_p999"].values <= high).all()
    assert (tails["hist_p001"].values >= low).all()


def test_what_is_no_number_moves_no_percentile(tmp_path: Path) -> None:
    """A batch whose layer has no finite value counts nothing, and bounds nothing."""
    plants = {
        (1, STEPS[2], "mm0.img.mlp.fc1"): fill(np.nan),
        (0, STEPS[1], "mm0.txt.mlp.fc1"): put(np.inf, 0),
        (2, STEPS[1], "mm0.txt.mlp.fc1"): put(-1e6, 1),
    }
    store = open_store(planted_store(tmp_path / "s.zarr", plants, mantissa_bits=3))
    got = scales(store["activations/mlp.fc1"], clip="percentile", percentile=100.0).compute()
    for step in STEPS:
        for layer in got["layer"].values:
            name = f"{layer}.mlp.fc1"
            with np.errstate(over="ignore"):
                seen = [tensors(i, step, plants)[name].astype(np.float16) for i in range(3)]
            x = abs(np.concatenate([one.ravel() for one in seen]).astype(np.float64))
            assert got["alpha"].sel(step=step, layer=layer) == x[np.isfinite(x)].max()


@pytest.mark.parametrize("rule", RULES)
def test_of_zeros_alone_every_rule_makes_zero(rule: str) -> None:
    x = X.copy()
    x[:, 1, 2] = 0.0
    x[:, 3, 0] = -0.0
    group = observed("mlp.fc1", x, mantissa_bits=5)
    for symmetric in (True, False):
        got = scales(group, clip=rule, symmetric=symmetric)
        upper = got["upper"].transpose("step", "layer").values
        assert (upper[1, 2], upper[3, 0]) == (0.0, 0.0)
        assert (got["lower"].transpose("step", "layer").values[[1, 3], [2, 0]] == 0.0).all()
        assert (np.delete(upper.ravel(), [1 * 3 + 2, 3 * 3]) > 0).all()

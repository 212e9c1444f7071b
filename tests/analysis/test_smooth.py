"""Smoothing factors against the papers' formulas, one layer at a time."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis import smooth
from taqstore.analysis.shared.ranks import spearman
from taqstore.analysis.smooth import Rule, stored_weight_absmax
from taqstore.errors import LayoutError, MissingError, TaqError

X = activations("mlp.fc1")
ABSMAX = np.abs(X.astype(np.float64)).max(axis=(0, 3))  # step, layer, channel


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc1", X, mantissa_bits=0)


@pytest.fixture(scope="module")
def weights() -> xr.DataArray:
    """In another order of layers, with one that was not observed and a dead column."""
    w = np.exp(np.random.default_rng(8).normal(-3, 1, (4, 7)))
    w[1, 2] = 0.0
    layers = ["uni9", "mm1.img", "mm0.txt", "mm0.img"]
    return xr.DataArray(w, {"layer": layers}, ("layer", "channel"))


def w_of(weights: xr.DataArray) -> np.ndarray:
    return weights.sel(layer=["mm0.img", "mm0.txt", "mm1.img"]).values


@pytest.mark.parametrize("strength", [0.0, 0.35, 0.5, 1.0])
def test_smoothquant(group: xr.Dataset, weights: xr.DataArray, strength: float) -> None:
    got = smooth(group, weights=weights, strength=strength)
    w = w_of(weights)
    for layer in range(3):
        for channel in range(7):
            a = ABSMAX[:, layer, channel].max()
            expected = max(a**strength / max(w[layer, channel], 1e-5) ** (1 - strength), 1e-5)
            factor = got["factor"].values[layer, channel]
            assert factor == pytest.approx(expected, rel=1e-13)
            assert got["balanced_absmax"].values[layer, channel] == pytest.approx(a / factor)
    np.testing.assert_array_equal(got["weight_absmax"], w)


def test_smoothquant_ranges(group: xr.Dataset, weights: xr.DataArray) -> None:
    """A step at a cut belongs to the noisier range; ranges without steps are not there."""
    sigma = group["sigma"].values.astype(np.float64)
    cuts = [float(sigma[4]), 0.35, 0.349]
    got = smooth(group, weights=weights, rule="smoothquant-ranges", strength=0.6, cuts=cuts)
    noisy, middle = sigma >= sigma[4], (sigma < sigma[4]) & (sigma >= 0.35)
    for number, part in enumerate([noisy, middle, sigma < 0.349]):
        a = ABSMAX[part].max(axis=0)
        expected = np.maximum(a**0.6 / np.maximum(w_of(weights), 1e-5) ** 0.4, 1e-5)
        np.testing.assert_allclose(got["factor"].values[number], expected, rtol=1e-13)
        assert got["range_sigma_low"].values[number] == sigma[part].min()
        assert got["range_sigma_high"].values[number] == sigma[part].max()
    assert got.sizes["time_range"] == 3
    each = smooth(group, weights=weights, rule="smoothquant-ranges")
    np.testing.assert_array_equal(each["activation_absmax"], ABSMAX)


def test_one_range_is_smoothquant(group: xr.Dataset, weights: xr.DataArray) -> None:
    whole = smooth(group, weights=weights, rule="smoothquant-ranges", cuts=[0.0])
    plain = smooth(group, weights=weights)
    np.testing.assert_array_equal(whole["factor"].values[0], plain["factor"].values)


def ranks(values: list[float]) -> list[float]:
    """Mean ranks by counting."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


def naive_spearman(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (np.array(ranks(v.tolist())) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else 0.0


def test_ptq4dit_steps(group: xr.Dataset, weights: xr.DataArray) -> None:
    got = smooth(group, weights=weights, rule="ptq4dit-steps")
    w = w_of(weights)
    for layer in range(3):
        rho = np.array([naive_spearman(ABSMAX[t, layer], w[layer]) for t in range(len(STEPS))])
        eta = np.exp(-rho) / np.exp(-rho).sum()
        salience = (eta[:, None] * ABSMAX[:, layer]).sum(axis=0)
        np.testing.assert_allclose(got["rank_correlation"].values[:, layer], rho, atol=1e-14)
        np.testing.assert_allclose(got["step_weight"].values[:, layer], eta, rtol=1e-13)
        alive = (w[layer] > 1e-5) & (salience > 0)
        # Both sides meet at the geometric mean, the paper's balanced salience.
        balanced = np.sqrt(salience * w[layer])
        factor = got["factor"].values[layer]
        np.testing.assert_allclose((salience / factor)[alive], balanced[alive], rtol=1e-12)
        np.testing.assert_allclose((w[layer] * factor)[alive], balanced[alive], rtol=1e-12)


ROWS = hnp.arrays(np.float64, (2, 9), elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0, 8.0]))


@settings(deadline=None)
@given(ROWS)
def test_spearman_with_ties(rows: np.ndarray) -> None:
    got = float(spearman(rows[0], rows[1]))
    assert got == pytest.approx(naive_spearman(rows[0], rows[1]), abs=1e-14)
    assert float(spearman(rows[1], rows[0])) == got
    assert float(spearman(np.exp(rows[0]), rows[1])) == got  # ranks alone count


def test_spearman_ends_and_unknowns() -> None:
    x = np.arange(6.0)
    assert spearman(x, x**3) == 1.0
    assert spearman(x, -x) == -1.0
    assert spearman(x, np.ones(6)) == 0.0
    assert np.isnan(spearman(np.append(x, np.nan), np.arange(7.0)))


def test_scale_equivariance(group: xr.Dataset, weights: xr.DataArray) -> None:
    """Four times the activations: twice the factor at strength 1/2, exactly."""
    wider = group.assign(min=group["min"].astype("f8") * 4, max=group["max"].astype("f8") * 4)
    one, four = (smooth(g, weights=weights)["factor"] for g in (group, wider))
    alive = one > 1e-4
    np.testing.assert_allclose(four.where(alive), 2 * one.where(alive), rtol=1e-15)


def test_weights_of_the_store(group: xr.Dataset) -> None:
    """Integers times steps, the largest over outputs."""
    rng = np.random.default_rng(4)
    integers = rng.integers(-8, 8, (3, 5, 7)).astype(np.int8)
    steps = rng.random((3, 5))
    stored = xr.Dataset(
        {"weight": (("layer", "out", "in"), integers), "step_size": (("layer", "out"), steps)},
        {"layer": group["layer"].values},
    )
    got = smooth(group, weights={"mlp.fc1": stored}, site="mlp.fc1")
    expected = np.abs(integers * steps[..., None]).max(axis=1)
    np.testing.assert_array_equal(got["weight_absmax"], expected)


def test_grouped_weights_of_three_projections(group: xr.Dataset) -> None:
    """Each run of inputs has its step; the largest over outputs of q, k and v."""
    rng = np.random.default_rng(5)
    integers = rng.integers(-8, 8, (3, 3, 4, 6)).astype(np.int8)
    steps = rng.random((3, 3, 4, 2)).astype(np.float32)
    dims = ("layer", "projection", "out")
    stored = xr.Dataset(
        {"weight": ((*dims, "in"), integers), "step_size": ((*dims, "group"), steps)},
        {"layer": group["layer"].values},
    )
    got = stored_weight_absmax(stored)
    expected = np.zeros((3, 6))
    for place in np.ndindex(integers.shape):
        layer, projection, out, channel = place
        value = abs(int(integers[place]) * float(steps[layer, projection, out, channel // 3]))
        expected[layer, channel] = max(expected[layer, channel], value)
    np.testing.assert_array_equal(got.transpose("layer", "channel"), expected)
    assert stored_weight_absmax(stored.chunk({"layer": 1})).chunks


def test_pooled_statistics_and_absent_steps() -> None:
    groups = run_groups(*synthetic_run())
    dataset = groups["pooled/timestep_stats/mlp.fc1"]
    layers = dataset["layer"].values
    w = xr.DataArray(np.ones((len(layers), dataset.sizes["channel"])), {"layer": layers},
                     ("layer", "channel"))  # fmt: skip
    got = smooth(dataset, weights=w, rule="ptq4dit-steps").sel(layer="mm0.txt")
    assert np.isnan(got["rank_correlation"].sel(step=6))  # the collector missed it there
    assert np.isfinite(got["factor"]).all()
    assert float(got["step_weight"].sum()) == pytest.approx(1.0, rel=1e-14)


def test_refusals(group: xr.Dataset, weights: xr.DataArray) -> None:
    with pytest.raises(MissingError, match=r"needs the absmax of the weights.*--weights FILE"):
        smooth(group)
    with pytest.raises(MissingError, match=r"mlp\.fc1: smooth needs the absmax"):
        smooth(group, weights={"mlp.fc2": weights}, site="mlp.fc1")
    with pytest.raises(LayoutError, match=r"no weights of layer mm0\.txt; give --weights"):
        smooth(group, weights=weights.sel(layer=["mm0.img", "mm1.img"]))
    with pytest.raises(LayoutError, match=r"found 6 in the weights, 7 observed"):
        smooth(group, weights=weights.isel(channel=slice(6)))
    with pytest.raises(TaqError, match="rule 'awq' is not known"):
        smooth(group, weights=weights, rule="awq")  # type: ignore[arg-type]
    with pytest.raises(TaqError, match="cuts goes with rule viditq or smoothquant-ranges, not"):
        smooth(group, weights=weights, cuts=[0.5])
    with pytest.raises(TaqError, match="strength must be 0 to 1"):
        smooth(group, weights=weights, strength=1.1)
    with pytest.raises(TaqError, match=r"strength goes with rule .*, not with ptq4dit"):
        smooth(group, weights=weights, rule="ptq4dit", strength=0.6)


@pytest.mark.parametrize("rule", get_args(Rule))
def test_lazy_and_equal(group: xr.Dataset, weights: xr.DataArray, rule: Rule) -> None:
    lazy = smooth(group.chunk({"batch": 1}), weights=weights.chunk({"layer": 2}), rule=rule)
    computed = [name for name in lazy if not str(name).startswith("range_sigma")]
    assert all(lazy[name].chunks for name in computed)
    loaded = lazy.compute(scheduler="synchronous")
    xr.testing.assert_allclose(loaded, smooth(group, weights=weights, rule=rule), rtol=1e-14)
    for variable in loaded.data_vars.values():
        assert variable.attrs["description"]
    loaded.drop_vars("image", errors="ignore").to_netcdf()

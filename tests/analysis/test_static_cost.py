"""What a static clip bound costs, against quantizing the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from support.statistics_synthetic import STEPS, activations, observed
from taqstore.analysis import temporal
from taqstore.analysis.costs.static_cost import left_out
from taqstore.errors import TaqError

X = activations("mlp.fc1")


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc1", X, mantissa_bits=7)


def quantized_error(values: np.ndarray, alpha: float, bits: int) -> float:
    qmax = 2 ** (bits - 1) - 1
    step = alpha / qmax
    return float(((np.clip(np.rint(values / step), -qmax - 1, qmax) * step - values) ** 2).mean())


@pytest.mark.parametrize("bits", [4, 8])
def test_errors_of_absmax_bounds(group: xr.Dataset, bits: int) -> None:
    """Bins are a hundredth as wide as the values in them; the values are quantized one by one."""
    got = temporal(group, bits=bits)
    x = np.moveaxis(X.astype(np.float64), (1, 2), (0, 1)).reshape(len(STEPS), 3, -1)
    alpha = np.abs(x).max(axis=-1)
    for layer in range(3):
        own = [quantized_error(x[t, layer], alpha[t, layer], bits) for t in range(len(STEPS))]
        top = alpha[:, layer].max()
        one = [quantized_error(x[t, layer], top, bits) for t in range(len(STEPS))]
        np.testing.assert_allclose(got["per_step_error"].values[:, layer], own, rtol=0.02)
        np.testing.assert_allclose(got["static_error"].values[:, layer], one, rtol=0.02)
        cost = float(got["static_cost"][layer])
        assert cost == pytest.approx(sum(one) / sum(own), rel=0.02)
        assert cost > 1.5  # the ranges of these activations shrink by four


def test_best_bounds_never_err_more(group: xr.Dataset) -> None:
    plain, best = (temporal(group, bits=4, clip=clip) for clip in ("absmax", "mse"))
    assert (best["per_step_error"] <= plain["per_step_error"] * (1 + 1e-12)).all()
    total = best["static_error"].sum("step") - plain["static_error"].sum("step")
    assert (total <= 1e-12).all()
    assert (best["static_cost"] >= 1 - 1e-2).all()  # each search is good to below 1 %


def test_one_step_costs_nothing(group: xr.Dataset) -> None:
    for clip in ("absmax", "mse"):
        got = temporal(group.isel(step=[4]), bits=4, clip=clip)
        np.testing.assert_allclose(got["static_cost"], 1.0, rtol=1e-12)
        assert np.isnan(got["lut_r2"]).all()


def test_without_histograms_the_rest_is_told(group: xr.Dataset) -> None:
    got = temporal(group.drop_vars("histogram"))
    assert "static_cost" not in got
    assert "lut_r2" in got
    with pytest.raises(TaqError, match="clip 'p999' is not known; there is absmax, mse"):
        temporal(group, clip="p999")  # type: ignore[arg-type]


def test_a_table_of_a_straight_line_is_exact() -> None:
    sigma = np.array([1.0, 0.9, 0.55, 0.2, 0.01])
    r2, worst = left_out(np.stack([3 + 2 * sigma, np.full(5, 4.0)]), sigma)
    np.testing.assert_allclose(r2, 1.0, atol=1e-13)
    np.testing.assert_allclose(worst, 0.0, atol=1e-14)


def test_a_table_against_one_step_at_a_time() -> None:
    rng = np.random.default_rng(6)
    sigma = np.sort(rng.random(9))[::-1]
    alpha = rng.uniform(1, 9, (4, 9))
    r2, worst = left_out(alpha, sigma)
    for row in range(4):
        guess = [
            np.interp(-sigma[i], np.delete(-sigma, i), np.delete(alpha[row], i))
            for i in range(1, 8)
        ]
        inner = alpha[row, 1:-1]
        lost = ((guess - inner) ** 2).sum()
        assert r2[row] == pytest.approx(1 - lost / ((inner - inner.mean()) ** 2).sum(), rel=1e-12)
        assert worst[row] == pytest.approx((abs(guess - inner) / inner).max(), rel=1e-12)
    alpha[2, 3] = np.nan
    assert np.isnan(left_out(alpha, sigma)[0]).tolist() == [False, False, True, False]

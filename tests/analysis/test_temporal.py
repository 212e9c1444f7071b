"""Drift over steps and schedules over sigma, against NumPy one layer at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from support import source_documents as source
from support.statistics_data import split_name
from support.statistics_synthetic import (
    BATCHES,
    STEPS,
    activations,
    observed,
    run_groups,
    synthetic_run,
)
from taqstore.analysis import FitRule, schedule, temporal
from taqstore.analysis.schedule import evaluate
from taqstore.analysis.shared.inputs import mean_known
from taqstore.errors import MissingError, TaqError

RUN, DOCUMENT = synthetic_run()
SIGMA = np.linspace(1, 0.01, len(STEPS), dtype=np.float32).astype(np.float64)


@pytest.fixture(scope="module")
def groups() -> dict[str, xr.Dataset]:
    return run_groups(RUN, DOCUMENT)


# -- temporal --------------------------------------------------------------------------------------


def test_steps_of_pooled_statistics(groups: dict[str, xr.Dataset]) -> None:
    document = source.temporal_v4(RUN, DOCUMENT)
    for name, expected in document["layer_scale_summary"].items():
        layer, site, _ = split_name(name)
        got = temporal(groups[f"pooled/timestep_stats/{site}"]).sel(layer=layer)
        for key in ("mean", "min", "max"):
            assert got[f"alpha_{key}"].item() == expected[f"{key}_scale"]
        values = [RUN[s][name]["tensor_absmax"] for s in STEPS if name in RUN[s]]
        assert got["cv"].item() == pytest.approx(np.std(values) / np.mean(values), rel=1e-13)
        if name in document["shift_summary"]:
            shift = document["shift_summary"][name]
            assert got["shift_absmax_max"].item() == shift["max_shift_magnitude"]
            assert got["shift_absmax_mean"].item() == shift["mean_shift_magnitude"]
        assert list(got["quantity"].values) == ["absmax", "range"]


def test_drift_of_observations() -> None:
    x = activations("mlp.fc2")
    got = temporal(observed("mlp.fc2", x, mantissa_bits=0))
    assert list(got["quantity"].values) == ["absmax", "range", "mean", "std"]
    rows = np.moveaxis(x.astype(np.float64), 0, 2).reshape(len(STEPS), 3, -1)
    paths = {
        "absmax": np.abs(rows).max(axis=-1),
        "range": rows.max(axis=-1) - rows.min(axis=-1),
        "mean": rows.mean(axis=-1),
        "std": rows.std(axis=-1),
    }
    for name, variable in (("mean", "tensor_mean"), ("std", "tensor_std")):
        np.testing.assert_allclose(got[variable].values, paths[name], rtol=1e-12)
    for name, path in paths.items():
        for layer in range(3):
            at = got.isel(layer=layer).sel(quantity=name)
            slope = np.polyfit(SIGMA, path[:, layer], 1)[0]
            assert at["slope"].item() == pytest.approx(slope, rel=1e-9)
            correlation = np.corrcoef(SIGMA, path[:, layer])[0, 1]
            assert at["correlation"].item() == pytest.approx(correlation, rel=1e-9)


def test_unequal_batches_are_weighted_by_their_counts() -> None:
    """The mean of 2 values at 0 and 6 values at 4 is 3, the variance 3."""
    dims = ("batch", "step", "layer", "channel")
    group = xr.Dataset(
        {
            "min": (dims, np.array([0.0, 4.0]).reshape(2, 1, 1, 1)),
            "max": (dims, np.array([0.0, 4.0]).reshape(2, 1, 1, 1)),
            "mean": (dims, np.array([0.0, 4.0]).reshape(2, 1, 1, 1)),
            "m2": (dims, np.zeros((2, 1, 1, 1))),
            "count": (dims[:3], np.array([2, 6]).reshape(2, 1, 1)),
        },
        {"batch": [0, 1], "step": [0], "layer": ["uni0"], "sigma": ("step", [0.5])},
    )
    got = temporal(group)
    assert got["tensor_mean"].item() == 3.0
    assert got["tensor_std"].item() == pytest.approx(np.sqrt(3), rel=1e-15)
    assert np.isnan(got["slope"]).all()


def test_postgelu_moments() -> None:
    """Tensor std from per-channel means and standard deviations of equal counts."""
    x = np.random.default_rng(6).normal(3, 2, (4, 2, 500, 5)) * np.arange(1, 6)
    dims = ("step", "layer", "channel")
    group = xr.Dataset(
        {
            **{n: (dims, getattr(x, n)(axis=2)) for n in ("mean", "std", "min", "max")},
            "count": (dims[:2], np.full((4, 2), 500)),
        },
        {"step": range(4), "layer": ["mm0.img", "mm0.txt"], "sigma": ("step", SIGMA[:4])},
    )
    got = temporal(group)
    rows = x.reshape(4, 2, -1)
    np.testing.assert_allclose(got["tensor_std"].values, rows.std(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(got["tensor_mean"].values, rows.mean(axis=-1), rtol=1e-12)


def test_mean_known_sums_like_numpy() -> None:
    """np.mean of a vector sums pairwise, of a matrix's first axis it does not."""
    values = np.random.default_rng(1).lognormal(0, 4, (300, 50))
    values[3, 7] = values[5, :49] = np.nan
    values[9] = np.nan
    got = mean_known(values)
    for row, mean in zip(values, got, strict=True):
        known = row[~np.isnan(row)]
        assert mean == np.mean(known) if len(known) else np.isnan(mean)
    assert (mean_known(np.asfortranarray(values))[:3] == got[:3]).all()


# -- schedules -------------------------------------------------------------------------------------


def lut(alpha: np.ndarray, sigma: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"alpha": (("step", "layer"), alpha)},
        {
            "step": range(len(sigma)),
            "sigma": ("step", sigma),
            "layer": [f"uni{i}" for i in range(alpha.shape[1])],
        },
    )


def curves() -> np.ndarray:
    """Of true degree 2, 3, 4 and none, with noise; one flat."""
    rng = np.random.default_rng(12)
    s = 2 * SIGMA[:, None] - 1
    shapes = np.concatenate(
        [5 + s + 2 * s**2, 5 + s**3 * 4 - 3 * s, 5 + 8 * s**4 - 8 * s**2, np.exp(3 * s)], axis=1
    )
    noisy = 3 + np.repeat(shapes, 12, axis=1) + rng.normal(0, 0.3, (len(s), 48))
    return np.concatenate([noisy, np.full((len(s), 1), 4.0)], axis=1)


def fit_one(sigma: np.ndarray, alpha: np.ndarray, rule: FitRule) -> tuple[int, np.ndarray, float]:
    total = ((alpha - alpha.mean()) ** 2).sum()
    fits = {d: np.polyfit(sigma, alpha, d) for d in (2, 3, 4)}
    left = {d: ((alpha - np.polyval(c, sigma)) ** 2).sum() for d, c in fits.items()}
    r2 = {d: 1 - left[d] / total if total > 0 else 1.0 for d in fits}
    quartic, cubic = r2[4] - r2[3] > rule.quartic_gain, r2[3] - r2[2] > rule.cubic_gain
    degree = 4 if quartic else 3 if cubic else 2
    return degree, fits[degree], r2[degree]


@pytest.mark.parametrize("rule", [FitRule(), FitRule(cubic_gain=0.01, quartic_gain=0.02)])
def test_polynomials_equal_one_fit_per_layer(rule: FitRule) -> None:
    alpha = curves()
    got = schedule(lut(alpha, SIGMA), fit=rule)
    degrees = []
    for layer, values in enumerate(alpha.T):
        degree, coefficients, r2 = fit_one(SIGMA, values, rule)
        one = got.isel(layer=layer)
        assert one["degree"] == degree
        fitted = one["coefficient"].values[degree::-1]
        scale = np.abs(coefficients).max()
        np.testing.assert_allclose(fitted, coefficients, rtol=1e-10, atol=1e-12 * scale)
        assert np.isnan(one["coefficient"].values[degree + 1 :]).all()
        assert one["r2"].item() == pytest.approx(r2, abs=1e-12)
        assert one["cv"].item() == pytest.approx(values.std() / values.mean(), abs=1e-14)
        expected = np.polyval(coefficients, SIGMA)
        np.testing.assert_allclose(one["fitted"].values, expected, rtol=1e-9)
        degrees.append(degree)
    assert set(degrees) == {2, 3, 4}
    assert got["power"].values.tolist() == [0, 1, 2, 3, 4]


def test_gaps_are_left_out_of_a_fit() -> None:
    alpha = curves()[:, :5]
    alpha[2, 1] = alpha[7, 1] = np.nan
    alpha[3:, 2] = np.nan
    alpha[4:, 3] = np.nan
    got = schedule(lut(alpha, SIGMA))
    known = ~np.isnan(alpha[:, 1])
    degree, coefficients, _ = fit_one(SIGMA[known], alpha[known, 1], FitRule())
    assert got["degree"].values[1] == degree
    fitted = got["coefficient"].values[1, degree::-1]
    np.testing.assert_allclose(fitted, coefficients, rtol=1e-10)
    assert got["degree"].values[2] == -1
    assert np.isnan(got["cv"].values[2])
    assert np.isnan(got["fitted"].values[:, 2]).all()
    assert got["degree"].values[3] in (2, 3)  # four points leave nothing for a fourth degree


def test_schedule_of_observations_and_tables() -> None:
    x = activations("mlp.fc1")
    table = schedule(observed("mlp.fc1", x, mantissa_bits=0), rule="lut")
    expected = np.abs(x).max(axis=(0, 3, 4)).astype(np.float64)
    np.testing.assert_array_equal(table["alpha"].values, expected)
    assert list(table.data_vars) == ["alpha"]
    assert expected.shape == (len(STEPS), 3)
    assert x.shape[0] == BATCHES


def test_evaluate_reads_nan_as_no_term() -> None:
    coefficient = np.array([[1.0, 2.0, 3.0, np.nan, np.nan]])
    assert evaluate(coefficient, np.array([0.0, 2.0])).tolist() == [[1.0, 17.0]]


def test_refusals() -> None:
    with pytest.raises(MissingError, match="schedule needs sigma"):
        schedule(lut(curves(), SIGMA).drop_vars("sigma"))
    with pytest.raises(MissingError, match="temporal needs sigma"):
        temporal(lut(curves(), SIGMA).drop_vars("sigma"))
    rule: Any = "spline"
    with pytest.raises(TaqError, match="rule 'spline'"):
        schedule(lut(curves(), SIGMA), rule=rule)

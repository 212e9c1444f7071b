"""Factors as the code of their authors computes them, replayed on raw activations.

The loops below are those of thu-nics/ViDiT-Q (`qdiff/models/quant_layer.py`, `momentum_act_max`)
and adreamwu/PTQ4DiT (`models.py`), written out in float64 with a sample for each forward. They see
activations, never statistics.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis import smooth
from taqstore.errors import MissingError, TaqError

X = activations("mlp.fc1", seed=11)  # batch, step, layer, row, channel
LAYERS, CHANNELS = X.shape[2], X.shape[4]
LABELS = ["mm0.img", "mm0.txt", "mm1.img"]
MATRICES = np.random.default_rng(3).normal(0, 0.05, (LAYERS, 9, CHANNELS))  # layer, out, in


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc1", X, mantissa_bits=0)


@pytest.fixture(scope="module")
def weights() -> xr.DataArray:
    return xr.DataArray(abs(MATRICES).max(axis=1), {"layer": LABELS}, ("layer", "channel"))


def theirs_viditq(
    x: np.ndarray, weight: np.ndarray, ranges: list[int], momentum: float, alpha: float
) -> dict[int, np.ndarray]:
    """Range -> factors, of activations (batch, step, row, channel) and the range of each step."""
    scale: dict[int, np.ndarray] = {}
    for step, number in enumerate(ranges):
        for batch in range(len(x)):
            current = np.abs(x[batch, step].astype(np.float64)).max(axis=-2)
            if np.abs(scale.get(number, np.zeros(1))).mean() == 0:
                scale[number] = current
            else:
                scale[number] = scale[number] * momentum + current * (1 - momentum)
    found = {}
    for number, values in scale.items():
        values[values == 0] = 1e-5
        found[number] = values**alpha / np.abs(weight).max(axis=0) ** (1 - alpha)
    return found


def theirs_ptq4dit(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Factors, of activations (batch, step, row, channel)."""
    samples = x.astype(np.float64).reshape(-1, *x.shape[2:])
    x_scale, w_scale = np.abs(samples).max(axis=1), np.abs(weight).max(axis=0)
    tau = np.array([spearmanr(row, w_scale)[0] for row in x_scale])
    share = np.exp(-tau) / np.exp(-tau).sum()
    return np.sqrt((x_scale * share[:, None]).sum(axis=0) / (w_scale + 1e-8))


@pytest.mark.parametrize(("momentum", "strength"), [(None, 0.5), (0.5, 0.3), (0.0, 0.12)])
def test_viditq(
    group: xr.Dataset, weights: xr.DataArray, momentum: float | None, strength: float
) -> None:
    sigma = group["sigma"].values.astype(np.float64)
    ranges = [int(s < sigma[3]) + int(s < 0.2) for s in sigma]
    got = smooth(group, weights=weights, rule="viditq", strength=strength, momentum=momentum,
                 cuts=[float(sigma[3]), 0.2])  # fmt: skip
    keep = 0.95 if momentum is None else momentum
    for layer in range(LAYERS):
        own = theirs_viditq(X[:, :, layer], MATRICES[layer], ranges, keep, strength)
        for number, expected in own.items():
            np.testing.assert_allclose(got["factor"].values[number, layer], expected, rtol=1e-13)
    assert got.attrs["momentum"] == keep
    assert got.sizes["time_range"] == 3


def test_viditq_begins_at_the_first_forward_that_is_not_zero(weights: xr.DataArray) -> None:
    x = X.copy()
    x[:, 0] = x[0, 1] = 0
    for cuts, ranges in ([0.0], [0] * len(STEPS)), ([], list(range(len(STEPS)))):
        got = smooth(observed("mlp.fc1", x, mantissa_bits=0), weights=weights, rule="viditq",
                     cuts=cuts)  # fmt: skip
        for layer in range(LAYERS):
            own = theirs_viditq(x[:, :, layer], MATRICES[layer], ranges, 0.95, 0.5)
            for number, expected in own.items():
                np.testing.assert_allclose(
                    got["factor"].values[number, layer], expected, rtol=1e-13
                )


def test_ptq4dit(group: xr.Dataset, weights: xr.DataArray) -> None:
    got = smooth(group, weights=weights, rule="ptq4dit")
    for layer in range(LAYERS):
        expected = theirs_ptq4dit(X[:, :, layer], MATRICES[layer])
        np.testing.assert_allclose(got["factor"].values[layer], expected, rtol=1e-13)
    share = got["forward_weight"]
    assert share.dims == ("batch", "step", "layer")
    np.testing.assert_allclose(share.sum(["batch", "step"]), 1.0, rtol=1e-14)


def test_names_tell_different_numbers(group: xr.Dataset, weights: xr.DataArray) -> None:
    """Extrema over batches give factors that are off by percents: they have names of their own."""
    pairs = {"viditq": "smoothquant-ranges", "ptq4dit": "ptq4dit-steps"}
    for authors, close in pairs.items():
        a, b = (smooth(group, weights=weights, rule=rule)["factor"] for rule in (authors, close))  # type: ignore[arg-type]
        assert float(abs(a / b - 1).where(b > 1e-3).max()) > 0.02


def test_a_layer_that_is_absent_at_a_step_is_passed_over(weights: xr.DataArray) -> None:
    """Any other unknown forward makes the average unknown, in that range and layer alone."""
    dataset = observed("mlp.fc1", X, mantissa_bits=0)
    for name in ("min", "max"):
        dataset[name][{"step": 2, "layer": 1}] = np.nan
        dataset[name][{"step": 5, "layer": 0, "batch": 1}] = np.nan
    got = smooth(dataset, weights=weights, rule="viditq", cuts=[0.0])["factor"].values[0]
    rest = np.delete(X[:, :, 1], 2, axis=1)
    own = theirs_viditq(rest, MATRICES[1], [0] * (len(STEPS) - 1), 0.95, 0.5)[0]
    np.testing.assert_allclose(got[1], own, rtol=1e-13)
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[2]).all()


@pytest.mark.parametrize(
    ("rule", "close"), [("viditq", "smoothquant-ranges"), ("ptq4dit", "ptq4dit-steps")]
)
def test_reduced_statistics_are_refused_by_name(rule: str, close: str) -> None:
    groups = run_groups(*synthetic_run())
    dataset = groups["pooled/timestep_stats/mlp.fc1"]
    layers = dataset["layer"].values
    w = xr.DataArray(np.ones((len(layers), dataset.sizes["channel"])), {"layer": layers},
                     ("layer", "channel"))  # fmt: skip
    with pytest.raises(MissingError, match=rf"--rule {rule} needs each forward.*--rule {close}"):
        smooth(dataset, weights=w, rule=rule)  # type: ignore[arg-type]
    smooth(dataset, weights=w, rule=close)  # type: ignore[arg-type]


def test_options_that_a_rule_has_not(group: xr.Dataset, weights: xr.DataArray) -> None:
    with pytest.raises(TaqError, match=r"momentum goes with rule viditq, not with ptq4dit"):
        smooth(group, weights=weights, rule="ptq4dit", momentum=0.5)
    with pytest.raises(TaqError, match=r"cuts goes with rule viditq or .*, not with ptq4dit-s"):
        smooth(group, weights=weights, rule="ptq4dit-steps", cuts=[0.5])
    with pytest.raises(TaqError, match=r"momentum must be at least 0, below 1"):
        smooth(group, weights=weights, rule="viditq", momentum=1.0)

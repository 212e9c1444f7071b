"""Outlier channels and tiers against one-layer-at-a-time Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from support import source_documents as source
from support.statistics_data import split_name
from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis import Thresholds, outliers, tiers
from taqstore.analysis.outliers import widest
from taqstore.analysis.tiers import scalar_power, width_rule
from taqstore.errors import MissingError

RUN, DOCUMENT = synthetic_run()


@pytest.fixture(scope="module")
def groups() -> dict[str, xr.Dataset]:
    return run_groups(RUN, DOCUMENT)


def group_of(groups: dict[str, xr.Dataset], name: str) -> tuple[xr.Dataset, str]:
    layer, site, _ = split_name(name)
    return groups[f"pooled/timestep_stats/{site}"], layer


# -- outliers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 0, 31])
@pytest.mark.parametrize("threshold", [1.5, 2.5])
def test_median_rule(groups: dict[str, xr.Dataset], step: int | None, threshold: float) -> None:
    label = STEPS[len(STEPS) // 2] if step is None else step
    config = source.outlier_config(RUN[label], threshold)
    for name in RUN[label]:
        dataset, layer = group_of(groups, name)
        got = outliers(dataset, threshold=threshold, step=step).sel(layer=layer)
        if name not in config:
            assert not got["is_outlier"].any()
            assert np.isnan(got["step_size_normal"])
            assert (got["multiplier"] == 1).all()
            continue
        expected = config[name]
        assert np.flatnonzero(got["is_outlier"]).tolist() == expected["outlier_indices"]
        assert got["multiplier"].values.tolist() == expected["multiplier_vector"]
        assert got["step_size_normal"].item() == expected["scale_normal"]
        assert got["step_size_outlier"].item() == expected["scale_outlier"]
    assert got.attrs["step"] == label


def test_multipliers_round_half_to_even() -> None:
    """Absmax ratios of exactly 2.5, 3.5 and 0.4 give 2, 4 and 1."""
    upper = np.array([[[1.0, 1.0, 1.0, 2.5], [1.0, 1.0, 1.0, 3.5], [0.9, 0.9, 5.0, 0.9]]])
    lower = np.array([[[0.9, 0.9, 0.9, 0.0], [0.9, 0.9, 0.9, 0.0], [0.8, 0.8, 4.9, 0.8]]])
    lower[0, 2] = [4.8, 4.8, 4.8, 0.0]
    upper[0, 2] = [5.0, 5.0, 5.0, 2.0]
    dims = ("step", "layer", "channel")
    group = xr.Dataset(
        {"min": (dims, lower), "max": (dims, upper)},
        {"step": [4], "layer": ["mm0.img", "mm0.txt", "mm1.img"]},
    )
    got = outliers(group)
    assert got["is_outlier"].values.tolist() == [[False, False, False, True]] * 3
    assert got["multiplier"].values[:, 3].tolist() == [2.0, 4.0, 1.0]


def test_widest_share() -> None:
    """FORMATS 7, Phase 2: max(1, int(0.02 D)) channels a step, the union over steps counted."""
    rng = np.random.default_rng(4)
    low, high = -rng.random((3, 2, 150)), rng.random((3, 2, 150))
    high[:, 1, 70] = 9.0
    dims = ("step", "layer", "channel")
    group = xr.Dataset(
        {"min": (dims, low), "max": (dims, high)}, {"step": [0, 1, 2], "layer": ["mm0.img", "uni0"]}
    )
    got = outliers(group)
    for row in range(2):
        union: set[int] = set()
        for step in range(3):
            width = (high - low)[step, row]
            chosen = sorted(range(150), key=lambda c: (-width[c], c))[:3]
            assert np.flatnonzero(got["is_widest"].values[step, row]).tolist() == sorted(chosen)
            union |= set(chosen)
        assert got["widest_count"].values[row] == len(union)
    assert widest(np.array([[1.0, 1.0, np.nan]])).tolist() == [[True, False, False]]


def test_outliers_of_observations_use_extrema_over_all_batches() -> None:
    x = activations("mlp.fc1", channels=40)
    got = outliers(observed("mlp.fc1", x, mantissa_bits=0), step=12)
    seen = x[:, STEPS.index(12)].astype(np.float64)
    width = seen.max(axis=(0, 2)) - seen.min(axis=(0, 2))
    np.testing.assert_array_equal(got["range"].values, width)
    expected = width > 2.5 * np.median(width, axis=1, keepdims=True)
    np.testing.assert_array_equal(got["is_outlier"].values, expected)
    assert expected.any()


def test_outlier_refusals(groups: dict[str, xr.Dataset]) -> None:
    with pytest.raises(MissingError, match=r"no step 4 \(found 0, 3, 5"):
        outliers(groups["pooled/timestep_stats/mlp.fc2"], step=4)
    with pytest.raises(MissingError, match="outliers needs min with max or avg_min with avg_max"):
        outliers(groups["pooled/timestep_stats/mlp.fc2"][["tensor_min"]])


# -- tiers -----------------------------------------------------------------------------------------


def test_bits_follow_the_source(groups: dict[str, xr.Dataset]) -> None:
    for name, steps in source.decisions(RUN).items():
        dataset, layer = group_of(groups, name)
        got = tiers(dataset).sel(layer=layer)
        for step in STEPS:
            entry = steps.get(step)
            assert got["bits"].sel(step=step) == (entry["bits"] if entry else 0)
        first = steps[STEPS[0]]
        assert bool(got["smoothquant"]) == ("smoothquant" in first)
        if "smoothquant" in first:
            assert got["smoothquant_scale"].values.tolist() == first["smoothquant_scales"]


def test_layer_statistics_follow_the_source(groups: dict[str, xr.Dataset]) -> None:
    effects = source.shift_analysis(RUN)
    for name, stats in source.layer_stats(RUN).items():
        dataset, layer = group_of(groups, name)
        got = tiers(dataset).sel(layer=layer)
        assert got["alpha_mean"].item() == stats["mean_absmax"]
        assert got["variability_ratio"].item() == stats["variability_ratio"]
        assert bool(got["high_variability"]) == (stats["variability_ratio"] > 2)
        assert bool(got["switcher"]) == (stats["a4_steps"] > 0 and stats["a8_steps"] > 0)
        if name in effects:
            assert got["shift_benefit"].item() == effects[name]["mean_shift_benefit"]
            assert got["skewness"].item() == effects[name]["mean_skewness"]
            assert bool(got["effective"]) == effects[name]["effective"]


def test_an_effective_shift() -> None:
    """All mass at 3 and a shift of 3: nothing is left; skewness of a symmetric pair is 0."""
    counts = np.array([[[0, 0, 0, 7], [5, 0, 0, 5]]])
    edges = np.broadcast_to(np.array([-3.5, -1.5, 0.5, 2.5, 3.5]), (1, 2, 5))
    dims = ("step", "layer")
    group = xr.Dataset(
        {
            "min": ((*dims, "channel"), np.full((1, 2, 2), -1.0)),
            "max": ((*dims, "channel"), np.full((1, 2, 2), 4.0)),
            "shift": ((*dims, "channel"), np.array([[[2.0, 4.0], [1.0, 1.0]]])),
            "hist_counts": ((*dims, "bin"), counts),
            "hist_edges": ((*dims, "edge"), edges),
        },
        {"step": [0], "layer": ["mm0.img", "mm0.txt"]},
    )
    got = tiers(group)
    assert got["shift_benefit"].values[0] == pytest.approx(1.0, abs=1e-8)
    assert got["effective"].values.tolist() == [True, False]
    assert got["skewness"].values[1] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("site", "expected"), [("mlp.fc2", [4, 6, 8, 8]), ("mlp.fc1", [4, 4, 6, 8]), ("", [4, 4, 6, 8])]
)
def test_thresholds_are_half_open_and_depend_on_the_site(site: str, expected: list[int]) -> None:
    top = np.array([4.999, 5.0, 8.0, 10.0])
    dims = ("step", "layer", "channel")
    group = xr.Dataset(
        {
            "min": (dims, np.zeros((1, 4, 3))),
            "max": (dims, np.broadcast_to(top[None, :, None], (1, 4, 3))),
        },
        {"step": [0], "layer": [f"uni{i}" for i in range(4)]},
    )
    assert tiers(group, site=site)["bits"].values[0].tolist() == expected
    assert width_rule(np.array([6.0, np.nan]), a4=7.0, a6=5.0).tolist() == [4, 0]


def test_own_thresholds_and_clip(groups: dict[str, xr.Dataset]) -> None:
    qkv = groups["pooled/timestep_stats/attn.qkv"]
    got = tiers(qkv, thresholds=Thresholds(a4=1e9, a6=1e10), clip="p999")
    assert (got["bits"] == 4).all()
    assert got.attrs["a4"] == 1e9
    assert got["alpha"].dims == ("step", "layer", "projection")
    expected = RUN[3]["mm0.txt.attn.k_proj"]["hist_p999"]
    assert got["alpha"].sel(step=3, layer="mm0.txt", projection="k_proj") == expected


def test_tiers_of_observations() -> None:
    """Bits from true extrema; the shift effect needs a shift, which observations do not store."""
    x = activations("mlp.fc2")
    got = tiers(observed("mlp.fc2", x, mantissa_bits=2), site="mlp.fc2")
    alpha = np.abs(x).max(axis=(0, 3, 4)).astype(np.float64)
    np.testing.assert_array_equal(got["alpha"].values, alpha)
    expected = np.where(alpha < 5, 4, np.where(alpha < 8, 6, 8))
    np.testing.assert_array_equal(got["threshold_bits"].values, expected)
    assert "shift_benefit" not in got


def test_scalar_power_is_pythons() -> None:
    values = np.exp(np.random.default_rng(2).normal(0, 3, (40, 50)))
    expected: Any = [[v**0.5 for v in row] for row in values.tolist()]
    assert scalar_power(values, 0.5).tolist() == expected

"""Tails, spikes and stability of outlier sets against Python sets, one layer at a time."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis import outliers
from taqstore.analysis.shared.outlier_set import mean_jaccard

X = activations("mlp.fc1", channels=60, seed=11)
X[:, :, 2, :, 17] *= 30.0


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return observed("mlp.fc1", X, mantissa_bits=0)


def outlier_set(width: np.ndarray, threshold: float) -> set[int]:
    median = np.median(width)
    return {c for c in range(len(width)) if median >= 1e-6 and width[c] > threshold * median}


def naive_jaccard(sets: list[set[int]]) -> float:
    pairs = list(combinations(sets, 2))
    if not pairs or not set().union(*sets):
        return float("nan")
    return float(np.mean([len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs]))


@pytest.mark.parametrize("threshold", [1.5, 2.5, 1e6])
def test_stability_over_steps_and_batches(group: xr.Dataset, threshold: float) -> None:
    got = outliers(group, threshold=threshold)
    x = X.astype(np.float64)
    every = x.max(axis=(0, 3)) - x.min(axis=(0, 3))
    single = x.max(axis=3) - x.min(axis=3)
    for layer in range(3):
        sets = [outlier_set(every[step, layer], threshold) for step in range(len(STEPS))]
        assert got["outlier_count"].values[:, layer].tolist() == list(map(len, sets))
        np.testing.assert_allclose(got["step_jaccard"].values[layer], naive_jaccard(sets))
        for step in range(len(STEPS)):
            sets = [outlier_set(single[b, step, layer], threshold) for b in range(len(x))]
            expected = naive_jaccard(sets)
            np.testing.assert_allclose(got["batch_jaccard"].values[step, layer], expected)


def test_tails_and_spikes(group: xr.Dataset) -> None:
    got = outliers(group, spike=3.0)
    x = X.astype(np.float64)
    width = x.max(axis=(0, 3)) - x.min(axis=(0, 3))
    for step in range(len(STEPS)):
        for layer in range(3):
            high, middle = np.percentile(width[step, layer], [99, 50])
            assert got["tail_ratio"].values[step, layer] == pytest.approx(high / middle, rel=1e-14)
            spikes = np.flatnonzero(width[step, layer] > 3.0 * high).tolist()
            assert np.flatnonzero(got["is_spike"].values[step, layer]).tolist() == spikes
            assert got["spike_count"].values[step, layer] == len(spikes)


def test_a_spike_is_alone_above_the_tail() -> None:
    """1,000 even channels and one 40 times as wide: one spike, no other outlier."""
    high = np.ones((1, 1, 1000))
    high[0, 0, 123] = 40.0
    dims = ("step", "layer", "channel")
    group = xr.Dataset(
        {"min": (dims, 0 * high), "max": (dims, high)}, {"step": [0], "layer": ["uni0"]}
    )
    got = outliers(group)
    assert np.flatnonzero(got["is_spike"].values).tolist() == [123]
    assert got["tail_ratio"].item() == 1.0
    assert np.isnan(got["step_jaccard"].item())  # one step is no pair
    assert "batch_jaccard" not in got


def test_steps_without_the_layer_form_no_pairs() -> None:
    dataset = run_groups(*synthetic_run())["pooled/timestep_stats/mlp.fc1"]
    whole, fewer = (
        outliers(d, threshold=1.2).sel(layer="mm0.txt") for d in (dataset, dataset.drop_sel(step=6))
    )
    assert np.isnan(dataset["avg_min"].sel(step=6, layer="mm0.txt")).all()
    assert float(whole["step_jaccard"]) == float(fewer["step_jaccard"])
    assert 0 < float(whole["step_jaccard"]) <= 1


MASKS = hnp.arrays(bool, (5, 8))


@settings(deadline=None)
@given(MASKS, st.permutations(range(5)), st.permutations(range(8)))
def test_jaccard_does_not_depend_on_order(
    masks: np.ndarray, members: list[int], channels: list[int]
) -> None:
    known = np.ones(5, bool)
    one = mean_jaccard(masks, known)
    other = mean_jaccard(masks[members][:, channels], known)
    np.testing.assert_allclose(one, other, rtol=1e-14)
    sets = [set(np.flatnonzero(mask).tolist()) for mask in masks]
    np.testing.assert_allclose(one, naive_jaccard(sets), rtol=1e-14)


@settings(deadline=None)
@given(hnp.arrays(bool, (2, 3, 4, 6)), hnp.arrays(bool, (2, 3, 4)))
def test_jaccard_of_places_is_that_of_their_known_members(
    masks: np.ndarray, known: np.ndarray
) -> None:
    found = mean_jaccard(masks, known)
    for place in np.ndindex(known.shape[:-1]):
        some = masks[place][known[place]]
        sets = [set(np.flatnonzero(mask).tolist()) for mask in some]
        np.testing.assert_allclose(found[place], naive_jaccard(sets), rtol=1e-14)


@settings(deadline=None)
@given(MASKS)
def test_one_set_throughout_is_fully_stable(masks: np.ndarray) -> None:
    value = mean_jaccard(np.repeat(masks[:1], 3, axis=0), np.ones(3, bool))
    assert np.isnan(value) if not masks[0].any() else value == 1.0

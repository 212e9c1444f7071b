"""Observations held in memory answer as they do in the store, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from support.statistics_data import coordinates
from taqstore.analysis import ANALYSES, RULES, held
from taqstore.errors import MissingError
from taqstore.query.analyze import analyze, load
from taqstore.statistics.histogram import Layout, count

DIMS = ("batch", "step", "layer", "channel")
MERGING = [rule for rule, row in RULES.items() if row.merges]
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    *(
        (name, {"clip": rule, "bits": 4, **more})
        for name in ("scales", "error")
        for rule in MERGING
        for more in ({}, {"symmetric": False, "cuts": "static"})
    ),
    ("curve", {"rules": MERGING, "ratios": (1.0, 0.3)}),
    ("temporal", {}),
    ("temporal", {"clip": "mse"}),
    ("groups", {}),
    ("groups", {"symmetric": False, "bits": 3, "shared": True, "count": 1}),
    ("bits", {}),
    ("schedule", {"clip": "percentile", "cuts": "static"}),
]


def observations(
    x: Any, layout: Layout, *, rollups: bool = True, channels: bool = True
) -> xr.Dataset:
    """Statistics of (batch, step, layer, row, channel) by plain NumPy; NaN rows are not counted."""
    wide, flat = x.astype(np.float64), x.reshape(*x.shape[:3], -1)
    counts = np.array([count(row, layout)[0] for row in flat.reshape(-1, flat.shape[-1])])
    nonfinite = np.array([count(row, layout)[1] for row in flat.reshape(-1, flat.shape[-1])])
    finite = np.isfinite(x).all(axis=-2)
    low, high = (np.where(finite, end, np.nan).astype(x.dtype) for end in (x.min(-2), x.max(-2)))
    mean = wide.mean(axis=-2)
    variables = {
        "mean": (DIMS, mean.astype(np.float32)),
        "m2": (DIMS, ((wide - mean[..., None, :]) ** 2).sum(axis=-2).astype(np.float32)),
        "count": (DIMS[:3], np.full(x.shape[:3], x.shape[3])),
        "histogram": (
            (*DIMS[:3], "bin"),
            counts.reshape(*x.shape[:3], -1).astype(np.uint32),
            layout.attrs,
        ),
        "nonfinite": ((*DIMS[:3], "nonfinite_kind"), nonfinite.reshape(*x.shape[:3], 3)),
    }
    if channels:
        variables |= {"min": (DIMS, low), "max": (DIMS, high)}
    if rollups:
        low, high = np.fmin.reduce(low, axis=-1), np.fmax.reduce(high, axis=-1)
        variables |= {"tensor_min": (DIMS[:3], low), "tensor_max": (DIMS[:3], high)}
    steps = np.arange(x.shape[1]) * 3
    coords = coordinates([f"mm{i}.img" for i in range(x.shape[2])], steps, 1 / (1 + steps), "")
    coords |= {"bin_left": ("bin", layout.left), "bin_right": ("bin", layout.right)}
    coords |= {"batch": range(len(x)), "image": (("batch", "slot"), np.arange(len(x))[:, None])}
    return xr.Dataset(variables, coords, {"store_digest": "feed"})


@st.composite
def drawn(draw: Any) -> xr.Dataset:
    """A few steps and layers, with dead, absent and non-finite tensors, of any number of bins."""
    dtype = draw(st.sampled_from(["float16", "float32"]))
    layout = Layout(dtype, draw(st.sampled_from([0, 2, 5] if dtype == "float32" else [0, 5, 10])))
    sizes = [draw(st.integers(1, most)) for most in (3, 4, 2, 3, 9)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=sizes) * np.exp(rng.normal(0, 2, (*sizes[:3], 1, sizes[4])))
    x = np.where(rng.random((*sizes[:3], 1, 1)) < 0.15, 0.0, x)  # nothing but zeros
    for wrong in (np.nan, np.inf, -np.inf):
        x = np.where(rng.random((*sizes[:3], 1, sizes[4])) < 0.03, wrong, x)
    x = np.where(rng.random((*sizes[:3], 1, 1)) < 0.1, np.nan, x)  # no value at all
    if draw(st.booleans()):
        x = abs(x)
    with np.errstate(invalid="ignore", over="ignore"):
        found = observations(
            x.astype(dtype), layout, rollups=draw(st.booleans()), channels=draw(st.booleans())
        )
    return found


def answer(name: str, dataset: xr.Dataset, options: dict[str, Any]) -> xr.Dataset | str:
    """What it says, or what it lacks."""
    try:
        function = ANALYSES[name].load()
        result: xr.Dataset = function(dataset, **options).compute()
    except MissingError as error:
        return str(error).partition("(")[0]
    return result


@settings(deadline=None, max_examples=12)
@given(dataset=drawn())
def test_held_in_memory_the_answers_are_the_same(dataset: xr.Dataset) -> None:
    with np.errstate(all="ignore"):
        small = held(dataset)
        for name, options in QUESTIONS:
            expected, got = (answer(name, data, options) for data in (dataset, small))
            if isinstance(expected, str):
                assert got == expected
            else:
                xr.testing.assert_identical(got, expected)


@settings(deadline=None, max_examples=12)
@given(dataset=drawn(), chosen=st.data())
def test_parts_of_what_is_held_answer_as_parts_of_the_dataset(
    dataset: xr.Dataset, chosen: Any
) -> None:
    part = {dim: [chosen.draw(st.integers(0, dataset.sizes[dim] - 1))] for dim in ("step", "layer")}
    with np.errstate(all="ignore"):
        small = held(dataset).isel(part)
        for name, options in QUESTIONS[:6]:
            expected = answer(name, dataset.isel(part), options)
            got = answer(name, small, options)
            assert type(got) is type(expected)
            if not isinstance(expected, str):
                xr.testing.assert_identical(got, expected)


def normal(seed: int = 0) -> xr.Dataset:
    x = np.random.default_rng(seed).normal(size=(3, 4, 2, 20, 6)).astype(np.float16)
    return observations(x, Layout("float16", 5))


def test_only_bins_that_hold_something_are_held() -> None:
    dataset = normal()
    small = held(dataset)
    some = np.flatnonzero(dataset["histogram"].values.any(axis=(0, 1, 2)))
    np.testing.assert_array_equal(small["bin_number"], some)
    np.testing.assert_array_equal(
        small["histogram"], dataset["histogram"].values.sum(axis=0)[..., some]
    )
    assert not {"batch", "slot", "channel"} & set(small.dims)
    assert not any(array.chunks for array in small.variables.values())


def test_counts_beyond_32_bits_are_held() -> None:
    dataset = normal()
    full = dataset["histogram"].copy()
    full[:, 0, 0, 1000] = 2**32 - 1
    small = held(dataset.assign(histogram=full))
    assert int(small["histogram"].max()) == 3 * (2**32 - 1)


def test_channels_are_held_where_they_are_asked_for() -> None:
    dataset = normal()
    small = held(dataset, channels=True)
    for name in ("min", "max"):
        assert small[name].dtype == np.float16
    for name, options in (("scales", {"per": "channel"}), ("error", {"clip": "mse"})):
        xr.testing.assert_identical(*(answer(name, d, options) for d in (small, dataset)))  # type: ignore[arg-type]
    got, expected = (ANALYSES["outliers"].load()(d) for d in (small, dataset))
    xr.testing.assert_identical(got, expected.drop_vars("batch_jaccard"))


def test_several_sites_held_are_asked_together() -> None:
    groups = {f"activations/{site}": normal(i) for i, site in enumerate(("mlp.fc1", "mlp.fc2"))}
    small = {path: held(dataset) for path, dataset in groups.items()}
    for name in ("bits", "groups"):
        expected, got = (load(analyze(name, given)) for given in (groups, small))
        for path in groups:
            xr.testing.assert_identical(got[path], expected[path])


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in MERGING])
def test_rules_that_ask_batches_are_refused_of_merged_ones(rule: str) -> None:
    with pytest.raises(MissingError):
        ANALYSES["scales"].load()(held(normal()), clip=rule)


def test_lazy_observations_are_held_as_those_in_memory() -> None:
    dataset = normal()
    xr.testing.assert_identical(held(dataset.chunk({"batch": 2, "layer": 1})), held(dataset))

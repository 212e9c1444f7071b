"""How many batches are enough: as plain loops over subsets find it, which ask `scales`, `error`."""

from __future__ import annotations

from math import log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.cli_runner import Runner
from support.statistics_synthetic import activations, observed
from taqstore.analysis import error, scales
from taqstore.analysis.enough import enough
from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.analysis.ranges.rules import RULES
from taqstore.analysis.ranges.subset_answers import answers, merged
from taqstore.errors import MissingError, MisuseError
from taqstore.quantization.search import Scheme
from taqstore.statistics.learning_curve import Subsets
from taqstore.testing import RunShape, make_activations, make_store


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    """Eight batches of two layers at five steps; histograms of 3 bits to be quick."""
    parts = [activations("mlp.fc1", layers=2, seed=seed) for seed in (5, 6)]
    found = [observed("mlp.fc1", part, mantissa_bits=3).isel(step=slice(0, 5)) for part in parts]
    joined = xr.concat(found, dim="batch", data_vars="minimal", join="outer")
    return joined.assign_coords(batch=range(8)).assign_attrs(found[0].attrs)


def by_loop(group: xr.Dataset, members: np.ndarray, **options: Any) -> np.ndarray:
    """Clip bounds (subset, step, layer), a subset at a time."""
    return np.array(
        [
            scales(group.isel(batch=np.flatnonzero(row)), **options)["alpha"]
            .transpose("step", "layer")
            .values
            for row in members
        ]
    )


@pytest.mark.parametrize("rule", RULES)
def test_answers_of_subsets_are_those_of_a_loop(group: xr.Dataset, rule: str) -> None:
    members = Subsets.of(8, orders=1, seed=0).members[[0, 9, 13, -1]]
    scheme, clip = Scheme(4, True), Clip(rule)

    def ask(dataset: xr.Dataset) -> xr.DataArray:
        return clip_range(dataset, clip, scheme, analysis="enough").upper

    row = RULES[rule]
    got = answers(group, members, ask, needs=row.needs, merges=row.merges)
    expected = by_loop(group, members, clip=rule, bits=4)
    np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(got[0], got[-1])


def test_merged_statistics_are_sums_and_extrema(group: xr.Dataset) -> None:
    members = np.array([[1, 0, 0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], bool)
    both = merged(group[["histogram", "tensor_min", "tensor_max"]].load(), members)
    for i, row in enumerate(members):
        some = group.isel(batch=np.flatnonzero(row))
        np.testing.assert_array_equal(both["histogram"][i], some["histogram"].sum("batch"))
        np.testing.assert_array_equal(both["tensor_min"][i], some["tensor_min"].min("batch"))
        np.testing.assert_array_equal(both["tensor_max"][i], some["tensor_max"].max("batch"))


@pytest.mark.parametrize("score", ["bound", "error"])
def test_moves_are_those_of_a_loop(group: xr.Dataset, score: str) -> None:
    options = {"clip": "percentile", "bits": 4}
    found = enough(group, score=score, orders=2, seed=3, **options)
    subsets = Subsets.of(8, orders=2, seed=3)
    if score == "bound":
        every = by_loop(group, subsets.members, **options)
    else:
        every = np.array(
            [error(group.isel(batch=np.flatnonzero(row)), **options)["error"].values
             for row in subsets.members]
        )  # fmt: skip
    for size in (1, 2):
        squares = [
            log(b / a) ** 2
            for part, whole in subsets.pairs(size, 4).tolist()
            for a, b in zip(every[part].ravel(), every[whole].ravel(), strict=True)
        ]
        got = float(found["move"].sel(size=size))
        assert got == pytest.approx(sqrt(np.mean(squares)), rel=1e-9)
    assert np.isnan(found["move"].sel(size=[4, 8])).all()
    away = [
        sqrt(np.mean(np.log(every[i] / every[-1]) ** 2))
        for i, row in enumerate(subsets.members)
        if row.sum() == 4
    ]
    assert float(found["deviation"].sel(size=4)) == pytest.approx(np.mean(away))
    assert float(found["deviation_low"].sel(size=4)) == pytest.approx(np.quantile(away, 0.05))
    assert float(found["deviation"].sel(size=8)) == 0


def test_layers_have_their_own_verdict(group: xr.Dataset) -> None:
    loose, strict = (enough(group, tolerance=t) for t in (10.0, 1e-6))
    assert loose["is_enough"].all()
    assert bool(loose["site_is_enough"])
    assert not strict["is_enough"].any()
    assert (strict["enough"] > 8).all()
    one = enough(group.isel(layer=[1]), tolerance=0.05)
    both = enough(group, tolerance=0.05)
    for name in ("expected_move", "expected_low", "expected_high", "enough"):
        assert float(both[name][1]) == pytest.approx(float(one[name][0]), rel=1e-12)
    assert float(one["site_move"]) == pytest.approx(float(one["expected_move"][0]))
    assert (both["expected_low"] < both["expected_move"]).all()
    assert (both["expected_move"] < both["expected_high"]).all()


def test_steps_are_those_of_a_loop(group: xr.Dataset) -> None:
    found = enough(group, along="steps", clip="mse", bits=4, tolerance=1e-6)
    whole = scales(group, clip="mse", bits=4, cuts="static")["alpha"].values
    whole = whole[0] if whole.ndim > 1 else whole
    for stride in (2, 4):
        squares = []
        for first in range(stride):
            some = group.isel(step=slice(first, None, stride))
            alpha = scales(some, clip="mse", bits=4, cuts="static")["alpha"].values
            alpha = alpha[0] if alpha.ndim > 1 else alpha
            squares.append(np.mean(np.log(alpha / whole) ** 2))
        at = found["stride"].values.tolist().index(stride)
        assert float(found["deviation"][at]) == pytest.approx(sqrt(np.mean(squares)))
    assert float(found["site_enough"]) == 5
    assert float(enough(group, along="steps", tolerance=99.0)["site_enough"]) < 5


def test_the_same_seed_gives_the_same_and_few_batches_are_refused(group: xr.Dataset) -> None:
    assert enough(group, seed=1).identical(enough(group, seed=1))
    with pytest.raises(MissingError, match=r"measures what 4 times .* \(found 3\); collect 4"):
        enough(group.isel(batch=slice(0, 3)))
    with pytest.raises(MissingError, match="along steps needs several"):
        enough(group.isel(step=[0]), along="steps")
    with pytest.raises(MissingError, match="enough needs batch"):
        enough(group.isel(batch=0, drop=True))
    for bad in ({"tolerance": 0.0}, {"orders": 0}, {"along": "layers"}, {"score": "sqnr"}):
        with pytest.raises(MisuseError):
            enough(group, **bad)


def test_cells_without_an_answer_are_left_out(group: xr.Dataset) -> None:
    dead = group.copy(deep=True)
    for name in ("min", "max", "tensor_min", "tensor_max"):
        dead[name][:, :, 0] = 0
        dead[name][3, 2, 1] = np.nan
    found = enough(dead)
    assert np.isnan(found["expected_move"][0])
    assert float(found["expected_move"][1]) > 0
    assert not bool(found["is_enough"][0])
    none = enough(dead.isel(layer=[0]), along="steps")
    assert np.isnan(none["site_enough"])
    assert not bool(none["site_is_enough"])
    with_channels = dead.drop_vars(["tensor_min", "tensor_max"])
    assert float(enough(with_channels)["site_move"]) == float(found["site_move"])
    alone = enough(group.isel(layer=[1], step=[0, 1, 3, 4]))
    assert float(found["site_move"]) == pytest.approx(float(alone["site_move"]))


def test_on_the_command_line(taq: Runner, tmp_path: Path) -> None:
    shape = RunShape(images=5, steps=4, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
    store = make_store(tmp_path / "r.zarr", shape=shape)
    done = taq("analyze", "enough", store, "--site", "mlp.fc1", "--csv")
    assert done.code == 0, done.err
    assert "site_move" in done.out
    assert taq("analyze", "enough", store, "--batch", "0:3").code == 1
    few = taq("analyze", "enough", store, "--batch", "0:1")
    assert (few.code, "collect 4 or more" in few.err) == (1, True)
    assert taq("analyze", "enough", store, "--tolerance", 0).code == 2
    assert taq("analyze", "enough", store, "--percentile", 99).code == 2
    pooled = tmp_path / "p.zarr"
    assert taq("ingest", make_activations(tmp_path / "a"), pooled).code == 0
    refused = taq("analyze", "enough", pooled)
    assert (refused.code, "enough needs batch" in refused.err) == (1, True)

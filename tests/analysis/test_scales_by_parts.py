"""Scales read layer by layer are those that dask and xarray work out, coordinates and all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.array import Array
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore import open_store
from taqstore.analysis import scales
from taqstore.analysis.ranges import by_parts
from taqstore.analysis.ranges.in_parts import PREFIX
from taqstore.arrays import store_array
from taqstore.query.analyze import analyze, load, site_tables
from taqstore.testing import make_sd3_store

GROUP = "activations/mlp.fc2"
PERCENTILES = (50.0, 99.0, 99.9, 100.0)
RULES = [{"clip": "mse"}, *({"clip": "percentile", "percentile": p} for p in PERCENTILES)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "run.zarr"
    make_sd3_store(path, steps=3, batches=3, blocks=2)
    return path


def check(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Equal to the bit, in the same order."""
    xr.testing.assert_identical(found, expected)
    assert list(found.data_vars) == list(expected.data_vars)
    for name, variable in expected.variables.items():
        assert found[name].dtype == variable.dtype
        assert found[name].values.tobytes() == variable.values.tobytes()


def chosen(length: int) -> st.SearchStrategy[Any]:
    places = st.lists(st.integers(0, length - 1), min_size=1, max_size=length, unique=True)
    cut = st.builds(slice, st.integers(0, length - 1), st.none(), st.integers(1, 2))
    return st.one_of(places, cut, st.just(slice(None)))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_part_of_a_group(store: Path, data: st.DataObject) -> None:
    where = {dim: data.draw(chosen(n)) for dim, n in (("batch", 3), ("step", 3), ("layer", 3))}
    rule: Mapping[str, Any] = data.draw(st.sampled_from(RULES))
    options: Mapping[str, Any] = {
        **rule,
        "bits": data.draw(st.sampled_from([2, 8])),
        "narrow_range": data.draw(st.booleans()),
    }
    late, early = (
        open_store(store, **given)[GROUP].isel(where) for given in ({}, {"chunks": "auto"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_parts, "_PART_BYTES", data.draw(st.sampled_from([1, 1 << 24])))
        for name in ("_LOOKED_AT", "_ROOM"):
            patch.setattr(by_parts, name, data.draw(st.sampled_from([1, 1 << 23])))
        found = scales(late, **options)
    assert all(name.startswith(PREFIX) for name in found["alpha"].data.dask.layers)
    check(found.compute(), scales(early, **options).compute())


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_answers_are_loaded_together(store: Path, scheduler: str) -> None:
    import dask

    options: Any = {"clip": "mse", "bits": 4}
    with dask.config.set(scheduler=scheduler):
        found = load(analyze("scales", open_store(store), **options))
    expected = load(analyze("scales", open_store(store, chunks="auto"), **options))
    assert list(found) == list(expected)
    for path, result in expected.items():
        check(found[path], result)
    for table, other in zip(site_tables(found), site_tables(expected), strict=True):
        pd.testing.assert_frame_equal(table, other)


def test_an_answer_is_cut_like_any_other(store: Path) -> None:
    found = scales(open_store(store)[GROUP], clip="percentile")
    assert isinstance(found["alpha"].data, Array)
    part = found.isel(step=1, layer=[0, 2]) * 2
    whole = found.compute()
    np.testing.assert_array_equal(part["alpha"], 2 * whole["alpha"][1, [0, 2]])
    again = load({GROUP: found.isel(step=[0]), "other": found})
    xr.testing.assert_identical(again["other"], whole)


def test_what_is_little_is_read_once(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Extrema of tensors stay; a larger array is opened for every pass."""
    opened = open_store(store)
    answers = []
    for times in range(2):
        caplog.clear()
        with caplog.at_level("DEBUG", logger="taqstore"):
            answers.append(scales(opened[GROUP], clip="percentile").compute())
        read = [record.getMessage() for record in caplog.records]
        assert any("histogram" in one for one in read)
        assert any("tensor_min" in one for one in read) is (times == 0)
    check(*answers)


@pytest.mark.parametrize(("limit", "most"), [("_LITTLE", 1), ("MAPS_KEPT", 2)])
def test_larger_arrays_and_those_of_many_files_are_opened_for_each_pass(
    store: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    def passed(name: str) -> bool:
        array = open_store(store)[GROUP].variables[name]._data.array
        return array.for_a_pass() is not array

    assert not passed("tensor_max")
    assert passed("histogram")
    monkeypatch.setattr(store_array, limit, most)
    assert passed("tensor_max")

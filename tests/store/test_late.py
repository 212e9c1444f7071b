"""What is opened without a word is read on use; where whole arrays are read, behind dask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from support.builders import write_latents
from support.uploaded import uploaded
from taqstore import open_store
from taqstore.analysis import ANALYSES, difference
from taqstore.arrays.dask_blocks import behind_dask
from taqstore.query import analyze, diff, reduce, select
from taqstore.testing import make_store

SITE = "activations/mlp.fc2"
SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "a number": {"step": 2},
    "slices": {"batch": slice(1, 4), "channel": slice(None, None, 7)},
    "lists": {"layer": [3, 0, 2], "step": [1, 3]},
    "one after another": {"batch": [4, 0], "layer": -1, "channel": slice(150, 3, -5)},
    "nothing": {"layer": slice(2, 2)},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("late") / "s.zarr", seed=3)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("late") / "t.zarr", seed=4)


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("computed")


def is_read(dataset: xr.Dataset) -> list[str]:
    """Variables whose values are in memory."""
    return [str(name) for name, one in dataset.data_vars.items() if one.variable._in_memory]


def behind(dataset: xr.Dataset) -> list[str]:
    """Variables that are dask's."""
    return [str(name) for name, one in dataset.data_vars.items() if one.chunks is not None]


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_goes_behind_dask_as_it_is(path: Path, name: str) -> None:
    late, auto = open_store(path)[SITE], open_store(path, chunks="auto")[SITE]
    for dim, key in SELECTIONS[name].items():
        late, auto = late.isel({dim: key}), auto.isel({dim: key})
    assert (behind(late), is_read(late)) == ([], [])
    put = behind_dask(late)
    assert behind(put) == list(put.data_vars)
    assert put.chunksizes == auto.chunksizes
    xr.testing.assert_identical(put.compute(), auto.compute())
    xr.testing.assert_identical(late.load(), auto.load())


def test_a_transposed_selection_is_read_on_use(path: Path) -> None:
    late = open_store(path)[SITE].transpose("layer", ...)
    put = behind_dask(late)
    xr.testing.assert_identical(
        put.load(), open_store(path, chunks=None)[SITE].transpose("layer", ...)
    )


def test_chunk_of_xarray_makes_blocks_of_whole_shards(path: Path) -> None:
    auto = open_store(path, chunks="auto")[SITE]
    chunked = open_store(path)[SITE].chunk({})
    assert {n: chunked[n].chunks for n in auto.data_vars} == {
        n: auto[n].chunks for n in auto.data_vars
    }


@pytest.mark.parametrize(
    "name",
    # `smooth` wants weights besides; those of whole stores and of second moments have other inputs.
    [
        n
        for n, row in ANALYSES.items()
        if not (row.whole or row.joint or row.source or n == "smooth")
    ],
)
def test_analyses_of_what_is_read_late_are_as_of_what_dask_reads(path: Path, name: str) -> None:
    late = ANALYSES[name].load()(open_store(path)[SITE])
    auto = ANALYSES[name].load()(open_store(path, chunks="auto")[SITE])
    assert behind(late) == behind(auto)
    xr.testing.assert_identical(late.compute(), auto.compute())


def test_whole_stores_go_behind_dask(path: Path, second: Path) -> None:
    one, two = open_store(path), open_store(second)
    with dask.config.set(scheduler=forbidden):
        answers = [analyze("scales", one)[SITE], diff(one, two)[SITE]]
        answers.append(difference(one[SITE], two[SITE]))
        answers.append(reduce(select(one[SITE], layer="mm*"), "channel=max"))
        several = open_store([path, second], renumber=True)
        answers.append(analyze("scales", several)[SITE])
    assert all(behind(answer) for answer in answers)


def test_several_stores_are_read_late_too(path: Path, second: Path) -> None:
    late = open_store([path, second], renumber=True)[SITE]
    auto = open_store([path, second], renumber=True, chunks="auto")[SITE]
    put = behind_dask(late.isel(batch=slice(3, 8)))
    assert put.chunksizes == auto.isel(batch=slice(3, 8)).chunksizes
    xr.testing.assert_identical(put.compute(), auto.isel(batch=slice(3, 8)).compute())


def test_chunks_none_keeps_dask_out_of_analyses(path: Path) -> None:
    with dask.config.set(scheduler=forbidden):
        found = analyze("scales", open_store(path, chunks=None))[SITE]
    assert behind(found) == []


def test_two_questions_of_one_group_share_their_reads(path: Path) -> None:
    group = open_store(path)[SITE]
    first, again = (set(behind_dask(group)["max"].__dask_graph__()) for _ in range(2))
    assert first == again
    other = set(behind_dask(open_store(path)[SITE])["max"].__dask_graph__())
    assert not first & other  # it may have been written anew in between


def test_what_was_written_since_is_seen_after_refresh(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", range(6), only=[0, 1])
    store = open_store(tmp_path / "s.zarr")
    blocks = store.blocks()
    assert blocks["latents"].sizes["image"] == store["latents"].sizes["image"] == 2
    write_latents(tmp_path / "s.zarr", range(6), only=[2, 3])
    store.refresh("latents")
    assert blocks["latents"].sizes["image"] == store["latents"].sizes["image"] == 4
    np.testing.assert_array_equal(blocks["latents"]["x"], store["latents"]["x"])


@pytest.mark.usefixtures("bucket")
def test_what_is_staged_is_staged_behind_dask_too(bucket: str, path: Path, second: Path) -> None:
    addresses = [uploaded(one, f"{bucket}/{one.name}") for one in (path, second)]
    several = open_store(addresses, renumber=True)
    plain, staged = several.blocks(), several.staging(1 << 20)
    assert staged.blocks() is not plain
    assert staged.blocks() is staged.blocks()
    xr.testing.assert_identical(staged.blocks()[SITE].load(), plain[SITE].load())

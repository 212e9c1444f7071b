"""Counts added up as they are decoded are those that are read whole and summed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore import open_store
from taqstore.analysis.ranges import added as module
from taqstore.analysis.ranges.added import added, adds
from taqstore.errors import StoreError
from taqstore.testing import make_sd3_store

GROUP = "activations/mlp.fc1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without sums, which would be read in the place of the counts."""
    path = tmp_path_factory.mktemp("added") / "run.zarr"
    make_sd3_store(path, steps=3, batches=3, blocks=2)
    for sums in path.rglob("sums"):
        shutil.rmtree(sums)
    return path


def keys(length: int) -> st.SearchStrategy[Any]:
    ends = st.integers(0, length)
    cut = st.builds(slice, ends, ends, st.integers(1, 3))
    back = st.builds(slice, ends, st.none(), st.integers(-2, -1))
    several = st.lists(st.integers(-length, length - 1), min_size=1, max_size=4).map(np.array)
    return st.one_of(cut, back, several, st.just(slice(None)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sums_are_those_of_what_is_read(store: Path, data: st.DataObject) -> None:
    reader = open_store(store).array(GROUP, "histogram")
    axis = data.draw(st.sampled_from([n for n in range(reader.ndim) if adds(reader, n)]))
    key = tuple(data.draw(keys(n)) for n in reader.shape)
    most = data.draw(st.integers(1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAPS_KEPT", most)
        found = added(reader, key, axis)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, reader.read(key).sum(axis, dtype=np.int64))


def test_only_compressed_counts_are_added(store: Path) -> None:
    opened = open_store(store)
    assert [adds(opened.array(GROUP, "histogram"), n) for n in range(4)] == [
        True,
        True,
        False,
        True,
    ]
    assert not adds(opened.array(GROUP, "tensor_min"), 0)


def test_a_damaged_chunk_is_refused(store: Path) -> None:
    file = next(path for path in (store / GROUP / "histogram" / "c").rglob("*") if path.is_file())
    whole = file.read_bytes()
    try:
        file.write_bytes(bytes([*whole[:99], whole[99] ^ 1, *whole[100:]]))
        reader = open_store(store).array(GROUP, "histogram")
        with pytest.raises(StoreError, match="damaged chunk"):
            added(reader, (slice(None),) * 4, 0)
    finally:
        file.write_bytes(whole)


def test_a_lost_file_is_refused(store: Path) -> None:
    file = next(path for path in (store / GROUP / "histogram" / "c").rglob("*") if path.is_file())
    aside = file.with_name("aside")
    file.rename(aside)
    try:
        reader = open_store(store).array(GROUP, "histogram")
        with pytest.raises(StoreError, match="missing, though its item is flagged"):
            added(reader, (slice(None),) * 4, 0)
    finally:
        aside.rename(file)

"""Sums that are kept are those of the counts, and are taken only while they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore import create_store, open_store
from taqstore.analysis.ranges.added import added
from taqstore.arrays.sums import summed_files
from taqstore.arrays.sums.sum_bytes import cut, decoded, sum_bytes
from taqstore.arrays.sums.summed_files import missing_sums, read_sum
from taqstore.errors import StoreError
from taqstore.statistics.histogram import Layout
from taqstore.store.writer import StoreWriter
from taqstore.testing import make_sd3_store
from taqstore.testing.model import RunShape
from taqstore.testing.store import activations_templates
from taqstore.upkeep import verify_store

LAYOUT = Layout("float16", 5)
GROUP = "activations/mlp.fc1"
EVERYTHING = (slice(None),) * 4
_CRC = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sums") / "run.zarr"
    return make_sd3_store(path, steps=3, batches=3, blocks=2, hidden=64)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run.zarr"))


def file_of(store: Path) -> Path:
    (found,) = (store / GROUP / "items" / "sums" / "histogram").iterdir()
    return found


def summed(store: Path, key: Any = EVERYTHING) -> tuple[np.ndarray, int]:
    """What `added` gives of a key, and how many sums it took."""
    taken: list[bool] = []

    def spy(*args: Any) -> np.ndarray | None:
        found = read_sum(*args)
        taken.append(found is not None)
        return found

    reader = open_store(store).array(GROUP, "histogram")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taqstore.analysis.ranges.added.read_sum", spy)
        found = added(reader, key, 0)
    np.testing.assert_array_equal(found, reader.read(key).sum(0, dtype=np.int64))
    return found, sum(taken)


def test_sums_of_all_items_are_kept_and_taken(store: Path) -> None:
    assert summed(store)[1] == 1
    backwards = (slice(None, None, -1), slice(2, None, -2), np.array([2, 0, 0]), slice(7, 900, 3))
    assert summed(store, backwards)[1] == 1


@pytest.mark.parametrize("some", [slice(0, 2), slice(1, 2), np.array([0, 1, 1]), slice(0, 0)])
def test_sums_of_other_items_are_worked_out(store: Path, some: Any) -> None:
    assert summed(store, (some, *EVERYTHING[1:]))[1] == 0


def test_a_sum_is_not_taken_once_an_item_is_another(store: Path) -> None:
    with create_store(store) as writer:
        put(writer, items=[1], factor=3)
    whole = file_of(store).read_bytes()
    assert summed(store)[1] == 1  # the writer made it anew
    put_back = made_before(store, items=[1], factor=5)
    file_of(store).write_bytes(whole)
    assert summed(store)[1] == 0
    assert put_back != whole


def made_before(store: Path, *, items: list[int], factor: int) -> bytes:
    """Write items anew; the file of sums that this leaves."""
    with create_store(store) as writer:
        put(writer, items=items, factor=factor)
    return file_of(store).read_bytes()


def put(writer: StoreWriter, *, items: list[int], factor: int, batches: int = 3) -> None:
    """Write counts of items anew, each bin `factor` times the item and its place."""
    shape = RunShape(images=batches, steps=3, blocks=2, hidden=64, stats_stride=1)
    (template,) = [t for t in activations_templates(shape, layout=LAYOUT) if t.path == GROUP]
    group = writer.group(template)
    for item in items:
        for array in template.arrays:
            values = np.zeros(template.shape(array)[1:], array.dtype)
            if array.name == "histogram":
                values += np.arange(values.size, dtype=np.uint32).reshape(values.shape) % 97
                values *= factor * (item + 1)
            group.put(array.name, (item, *(0 for _ in array.dims[1:])), values[None])
        group.commit([(item,)])


def test_what_was_summed_before_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    with create_store(path) as writer:
        put(writer, items=[0, 1], factor=1)
    before = file_of(path).read_bytes()
    read: list[tuple[int, ...]] = []
    file = summed_files.PackedFiles.file
    monkeypatch.setattr(
        summed_files.PackedFiles, "file", lambda self, at: read.append(at) or file(self, at)
    )
    with create_store(path) as writer:
        put(writer, items=[2], factor=1)
    assert [at[0] for at in read] == [2]
    assert file_of(path).read_bytes() != before
    assert summed(path)[1] == 1


def test_one_item_has_no_sum(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with create_store(path) as writer:
        put(writer, items=[1], factor=1)
    assert not (path / GROUP / "items" / "sums").exists()
    assert summed(path)[1] == 0


def test_nothing_is_made_where_nothing_is_missing(store: Path) -> None:
    reader = open_store(store).array(GROUP, "histogram")
    assert not list(missing_sums(reader))
    file_of(store).unlink()
    ((key, content),) = missing_sums(reader)
    assert (store / GROUP / key).name == "c.0.0.0"
    (store / GROUP / key).write_bytes(content)
    assert summed(store)[1] == 1


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, 1 << 20), bit=st.integers(0, 7), kept=st.integers(0, 1 << 20))
def test_a_damaged_sum_is_worked_out(made: Path, at: int, bit: int, kept: int) -> None:
    file = file_of(made)
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[at % len(whole)] ^= 1 << bit
    try:
        for content in (bytes(changed), whole[: kept % len(whole)]):
            file.write_bytes(content)
            assert summed(made)[1] == 0
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("fault", ["missing", "cut", "longer", "link"])
def test_counts_that_are_lost_are_refused_though_their_sum_is_there(
    store: Path, tmp_path: Path, fault: str
) -> None:
    file = store / GROUP / "histogram/c/1/0/0/0"
    content = file.read_bytes()
    file.rename(tmp_path / "elsewhere")
    if fault == "link":
        file.symlink_to(tmp_path / "elsewhere")
    elif fault != "missing":
        file.write_bytes(content[:-1] if fault == "cut" else content + b"0")
    reader = open_store(store).array(GROUP, "histogram")
    with pytest.raises(StoreError):
        added(reader, EVERYTHING, 0)


def test_a_link_in_the_place_of_a_sum_is_not_followed(store: Path, tmp_path: Path) -> None:
    file = file_of(store)
    elsewhere = file.rename(tmp_path / "elsewhere")
    file.symlink_to(elsewhere)
    assert summed(store)[1] == 0


def test_a_store_is_whole_without_sums_and_with_them(store: Path) -> None:
    assert not verify_store(store).damage
    shutil.rmtree(store / GROUP / "items" / "sums")
    assert not verify_store(store).damage


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-(1 << 40), 1 << 40) | st.integers(0, 99), min_size=1, max_size=60)
)
def test_any_counts_come_back(values: list[int]) -> None:
    chunks = [np.array(values, np.int64), np.zeros(len(values), np.int64)]
    shard, parts = cut(memoryview(sum_bytes(chunks, 2, [b"made", b"of"])), 2)
    assert parts == b"madeof"
    start, length = index(shard)[0]
    assert decoded(shard[start : start + length - _CRC], [len(values)]).tolist() == values


def index(shard: memoryview) -> list[list[int]]:
    return np.frombuffer(shard[-2 * 16 - _CRC : -_CRC], "<u8").reshape(-1, 2).tolist()


@pytest.mark.parametrize("at", [0, 3, 4, 8, 12])
def test_a_header_that_claims_otherwise_is_refused(at: int) -> None:
    shard, _ = cut(memoryview(sum_bytes([np.arange(500)], 1, [])), 1)
    start, length = np.frombuffer(shard[-20:-4], "<u8").tolist()
    content = bytearray(shard[start : start + length - _CRC])
    content[at] ^= 0x55
    if at in (0, 8):  # of these Blosc says so itself
        with pytest.raises((ValueError, RuntimeError)):
            decoded(memoryview(bytes(content)), [500])
        return
    with pytest.raises(ValueError, match="tells"):
        decoded(memoryview(bytes(content)), [500])


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.integers(0, 2), st.data())
def test_narrow_and_wide_chunks_are_put_together(
    wide: list[bool], axis: int, data: st.DataObject
) -> None:
    sizes = [2, 3, 4]
    sizes[axis] = 1
    chunks = [
        np.arange(24 // (2, 3, 4)[axis], dtype="<i8" if one else "<u4").reshape(sizes)
        + (np.int64(2) ** 40 if one else np.uint32(2**32 - 24))
        for one in wide
    ]
    wanted = data.draw(st.lists(st.integers(0, len(wide) - 1), min_size=1, max_size=6))
    file: Any = SimpleNamespace(chunk=chunks.__getitem__)
    found = summed_files._together(file, wanted, [slice(None)] * 3, axis)
    np.testing.assert_array_equal(found, np.concatenate([chunks[n] for n in wanted], axis))
    assert found.dtype == max(chunks[n].dtype for n in wanted)

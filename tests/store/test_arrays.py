"""Lazy arrays read what NumPy reads, mapped or not, whole or in pieces."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from taqstore.arrays.inner_chunks import framing_of
from taqstore.arrays.lazy import LazyArray, StoreArray
from taqstore.errors import StoreError
from taqstore.layout.shards import Frames, Framing, MappedShard
from taqstore.place.local_backend import LocalBackend

SHAPE, CHUNK, SHARD = (3, 5, 7, 4), (1, 5, 1, 4), (1, 5, 3, 4)
VALUES = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


def write_shard(path: Path, chunks: Iterable[np.ndarray], *, capacity: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    LocalBackend(path.parent).write(path.name, Frames(chunks, capacity=capacity))


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> tuple[zarr.Array[Any], Path]:
    """Seven layers in shards of three, written by our writer; zarr-python reads them too."""
    root = tmp_path_factory.mktemp("a") / "t.zarr"
    made = zarr.open_group(root, mode="w").create_array(
        "x", shape=SHAPE, chunks=CHUNK, shards=SHARD, dtype="float32", fill_value=np.nan,
        compressors=[Crc32cCodec()],
    )  # fmt: skip
    for image in range(3):
        for number, first in enumerate((0, 3, 6)):
            layers = [VALUES[image : image + 1, :, [i]] for i in range(first, min(first + 3, 7))]
            write_shard(root / f"x/c/{image}/0/{number}/0", layers, capacity=3)
    return made, root / "x"


def test_zarr_reads_what_we_write(array: tuple[zarr.Array[Any], Path]) -> None:
    assert array[0][...].tobytes() == VALUES.tobytes()


def test_we_map_what_zarr_writes(tmp_path: Path) -> None:
    made = zarr.open_group(tmp_path, mode="w").create_array(
        "x", shape=SHAPE, chunks=CHUNK, shards=SHARD, dtype="float32", compressors=[Crc32cCodec()]
    )
    made[...] = VALUES
    ours = StoreArray(made, folder=tmp_path / "x", shape=SHAPE)
    assert ours.framing is not None
    assert ours.read((slice(None),) * 4).tobytes() == VALUES.tobytes()


def _key(length: int) -> st.SearchStrategy[Any]:
    index = st.integers(-length, length - 1)
    ends = st.none() | st.integers(-length - 1, length + 1)
    step = st.sampled_from([None, 1, 2, 3, -1, -2])
    return (
        index
        | st.builds(slice, ends, ends, step)
        | st.lists(index, max_size=4).map(lambda p: np.array(p, dtype=np.int64))
    )


@settings(max_examples=300, deadline=None)
@given(key=st.tuples(*map(_key, SHAPE)), mapped=st.booleans())
def test_orthogonal_selection_equals_numpy(
    array: tuple[zarr.Array[Any], Path], key: tuple[Any, ...], mapped: bool
) -> None:
    lazy = StoreArray(array[0], folder=array[1] if mapped else None, shape=SHAPE)
    expected, axis = VALUES, 0
    for part in key:
        expected = expected[(slice(None),) * axis + (part,)]
        axis += not isinstance(part, int)
    got = lazy.read(key)
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def _variable(array: tuple[zarr.Array[Any], Path], **options: Any) -> xr.Variable:
    lazy = StoreArray(array[0], folder=array[1], shape=SHAPE, **options)
    return xr.Variable(("image", "step", "layer", "channel"), LazyArray(lazy))


def test_pointwise_selection_equals_xarray(array: tuple[zarr.Array[Any], Path]) -> None:
    eager = xr.Variable(("image", "step", "layer", "channel"), VALUES)
    image, layer = xr.Variable("sample", [2, 0, 1, 2]), xr.Variable("sample", [1, 6, 4, 0])
    for extra in (
        {}, {"step": slice(1, 4)}, {"step": slice(4, None, -2)}, {"step": [1, 3]}, {"channel": 2},
    ):  # fmt: skip
        got = _variable(array).isel(image=image, layer=layer, **extra)
        expected = eager.isel(image=image, layer=layer, **extra)
        assert got.dims == expected.dims
        assert got.values.tobytes() == expected.values.tobytes()


def test_pointwise_selection_after_another_equals_xarray(
    array: tuple[zarr.Array[Any], Path],
) -> None:
    eager = xr.Variable(("image", "step", "layer", "channel"), VALUES)
    points = {"image": xr.Variable("sample", [1, 0, 1]), "layer": xr.Variable("sample", [2, 0, 1])}
    before: list[dict[str, Any]] = [
        {"step": 3}, {"layer": slice(1, 6, 2)}, {"layer": slice(6, 2, -1)}, {"layer": [5, 0, 3]},
        {"step": [4, 1]},
    ]  # fmt: skip
    for first in before:
        got = _variable(array).isel(first).isel(points)
        expected = eager.isel(first).isel(points)
        assert got.dims == expected.dims
        assert got.shape == expected.shape
        assert got.values.tobytes() == expected.values.tobytes(), first
        assert np.array_equal(got.isel(sample=[2, 0]).T, expected.isel(sample=[2, 0]).T)


def test_random_samples_read_only_what_they_name(array: tuple[zarr.Array[Any], Path]) -> None:
    """Index arrays stay as narrow as the points: no mesh over tokens and channels."""
    points = {"image": xr.Variable("sample", [2, 0]), "layer": xr.Variable("sample", [1, 6])}
    pending = _variable(array).isel(points)._data
    assert [k.size for k in pending.key if isinstance(k, np.ndarray)] == [2, 2]
    assert sum(isinstance(k, slice) for k in pending.key) == 2


def test_transposed_variables_are_read_once(
    array: tuple[zarr.Array[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Xarray turns an unread transpose into a pointwise selection of every single element."""
    reads = []
    original = StoreArray.read

    def counting(self: StoreArray, key: Any) -> np.ndarray:
        reads.append(key)
        return original(self, key)

    monkeypatch.setattr(StoreArray, "read", counting)
    for order in (("channel", "layer", "image", "step"), ("layer", "image", "step", "channel")):
        got = _variable(array).transpose(*order)
        expected = xr.Variable(("image", "step", "layer", "channel"), VALUES).transpose(*order)
        assert got.values.tobytes() == expected.values.tobytes()
        part = got.isel(image=slice(0, 2), layer=[1, 4, 5], step=2)
        assert np.array_equal(part, expected.isel(image=slice(0, 2), layer=[1, 4, 5], step=2))
    assert len(reads) == 4


def test_selection_in_one_shard_is_a_view(array: tuple[zarr.Array[Any], Path]) -> None:
    values = _variable(array).isel(image=1, layer=slice(3, 6)).values
    assert not values.flags.owndata
    assert not values.flags.writeable
    assert np.array_equal(values, VALUES[1, :, 3:6])


def test_incomplete_items_read_as_fill(array: tuple[zarr.Array[Any], Path]) -> None:
    complete = np.array([True, False, True])
    values = _variable(array, complete=complete).values
    assert np.isnan(values[1]).all()
    assert np.array_equal(values[[0, 2]], VALUES[[0, 2]])


def test_pickles_without_its_maps(array: tuple[zarr.Array[Any], Path]) -> None:
    lazy = StoreArray(array[0], folder=array[1], shape=SHAPE)
    lazy.read((0, 0, 0, 0))
    copy = pickle.loads(pickle.dumps(lazy))
    assert np.array_equal(copy.read((1,)), VALUES[1])


def test_compressed_and_two_axis_arrays_are_not_mapped(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path, mode="w")
    zstd = group.create_array("z", shape=(4, 4), chunks=(1, 4), shards=(4, 4), dtype="f4")
    two = group.create_array(
        "t", shape=(4, 4), chunks=(1, 1), shards=(4, 4), dtype="f4", compressors=[Crc32cCodec()]
    )
    assert framing_of(zstd) is None
    assert framing_of(two) is None


def test_unaligned_double_shards_map(tmp_path: Path) -> None:
    """A 4-byte checksum between 8-byte chunks leaves the next chunk unaligned."""
    values = np.random.default_rng(0).normal(size=(3, 5))
    write_shard(tmp_path / "s", (values[i : i + 1] for i in range(3)), capacity=4)
    shard = MappedShard(tmp_path / "s", Framing((4, 5), np.dtype("<f8"), 0))
    assert shard.present == 3
    assert shard.view.tobytes() == values.tobytes()
    shard.check()


@pytest.mark.parametrize("position", [0, 37, 59, 64, 130])
def test_every_flipped_bit_is_seen(tmp_path: Path, position: int) -> None:
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    path = tmp_path / "s"
    write_shard(path, (values[i : i + 1] for i in range(3)), capacity=4)
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="damaged shard"):
        MappedShard(path, Framing((4, 5), np.dtype("<f4"), 0)).check()


@pytest.mark.parametrize("length", [0, 3, 60, 139])
def test_truncated_shards_are_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "s"
    write_shard(path, [np.ones((1, 5), np.float32)] * 3, capacity=4)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=r"damaged shard.*--resume"):
        MappedShard(path, Framing((4, 5), np.dtype("<f4"), 0))


def test_failed_write_leaves_the_old_shard(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_shard(path, [np.arange(4)], capacity=None)
    before = path.read_bytes()

    def broken() -> Any:
        yield np.zeros((1, 5))
        raise RuntimeError("producer died")

    with pytest.raises(RuntimeError, match="producer died"):
        write_shard(path, broken(), capacity=4)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]

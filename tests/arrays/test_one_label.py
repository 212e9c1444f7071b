"""One label of a group is what xarray selects, and a mapped shard reads as NumPy reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from taqstore import open_store
from taqstore.arrays.lazy import StoreArray
from taqstore.arrays.one_label import at_label
from taqstore.errors import StoreError
from taqstore.testing import make_store

SHAPE, SHARD = (4, 5, 3), (2, 5, 3)
VALUES = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_store(tmp_path_factory.mktemp("s") / "run.zarr"))


@pytest.mark.parametrize("chunks", ["late", None, "auto"])
def test_a_label_of_any_group_is_what_xarray_selects(address: Path, chunks: Any) -> None:
    store = open_store(address, chunks=chunks)
    layered = [path for path in store if "layer" in store[path].dims]
    assert layered
    for path in layered:
        group = store[path]
        for label in group["layer"].values.tolist():
            for dataset in (group, group.isel(layer=slice(None, None, -1)), _cut(group)):
                _same(at_label(dataset, "layer", label), dataset.sel(layer=label))


def _cut(group: xr.Dataset) -> xr.Dataset:
    """With selections pending along other axes: a slice, a position, positions out of order."""
    dims = [dim for dim in group.dims if dim != "layer"]
    keys: list[Any] = [slice(1, None), -1, np.arange(1)]
    return group.isel(dict(zip(dims, keys, strict=False)))


def _same(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    xr.testing.assert_identical(ours, theirs)
    assert list(ours.variables) == list(theirs.variables)
    assert dict(ours.sizes) == dict(theirs.sizes)
    assert list(ours.xindexes) == list(theirs.xindexes)
    for name, variable in theirs.variables.items():
        mine = ours.variables[name]
        assert (type(mine), mine.dtype, mine.encoding) == (
            type(variable), variable.dtype, variable.encoding
        )  # fmt: skip


def test_what_is_done_to_a_selection_leaves_the_group_as_it_is(address: Path) -> None:
    group = next(g for g in open_store(address).values() if "layer" in g.dims)
    name, label = next(iter(group.data_vars)), str(group["layer"].values[0])
    chosen = at_label(group, "layer", label)
    chosen.attrs["mine"] = 1
    chosen[name].attrs["mine"] = 1
    chosen["more"] = ((), 1)
    again = at_label(group, "layer", label)
    assert "mine" not in {**group.attrs, **group[name].attrs, **again.attrs}
    assert "more" not in group


def test_an_unknown_label_is_refused_as_xarray_does(address: Path) -> None:
    group = next(g for g in open_store(address).values() if "layer" in g.dims)
    with pytest.raises(KeyError):
        at_label(group, "layer", "mm99.img")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("z")
    zarr.open_group(root, mode="w").create_array(
        "x", shape=SHAPE, chunks=(2, 1, 3), shards=SHARD, dtype="float32",
        compressors=[Crc32cCodec()],
    )[...] = VALUES  # fmt: skip
    return root


_KEYS = st.tuples(
    *(
        st.one_of(
            st.integers(-n, n - 1),
            st.just(slice(None)),
            st.slices(n),
            st.lists(st.integers(0, n - 1), min_size=1, max_size=4).map(np.array),
        )
        for n in SHAPE
    )
)


@settings(max_examples=200)
@given(st.lists(_KEYS, min_size=1, max_size=5), st.booleans())
def test_whatever_was_read_before_a_selection_is_what_numpy_selects(
    folder: Path, keys: list[tuple[Any, ...]], checksum: bool
) -> None:
    array: Any = zarr.open_group(folder, mode="r")["x"]
    ours = StoreArray(array, folder=folder / "x", shape=SHAPE, checksum=checksum)
    for key in keys:
        wanted = VALUES
        for axis in reversed(range(3)):
            wanted = wanted[(*(slice(None),) * axis, key[axis])]
        found = ours.read(key)
        assert found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()


def test_positions_outside_are_refused_where_a_shard_is_mapped(folder: Path) -> None:
    array: Any = zarr.open_group(folder, mode="r")["x"]
    ours = StoreArray(array, folder=folder / "x", shape=SHAPE)
    ours.read((slice(None),) * 3)
    for wrong in (4, -5):
        with pytest.raises(IndexError):
            ours.read((wrong, slice(None), slice(None)))


def test_a_chunk_is_compared_though_its_shard_is_mapped(tmp_path: Path, folder: Path) -> None:
    root = tmp_path / "z"
    zarr.open_group(root, mode="w").create_array(
        "x", shape=SHAPE, chunks=(2, 1, 3), shards=SHARD, dtype="float32",
        compressors=[Crc32cCodec()],
    )[...] = VALUES  # fmt: skip
    file = root / "x" / "c" / "0" / "0" / "0"
    raw = bytearray(file.read_bytes())
    raw[3 * (2 * 3 * 4 + 4)] ^= 1
    file.write_bytes(raw)
    array: Any = zarr.open_group(root, mode="r")["x"]
    ours = StoreArray(array, folder=root / "x", shape=SHAPE)
    for _ in range(2):
        assert ours.read((0, 2, slice(None))).tobytes() == VALUES[0, 2].tobytes()
        with pytest.raises(StoreError, match="chunk 3"):
            ours.read((0, 3, slice(None)))
        with pytest.raises(StoreError, match="chunk 3"):
            ours.read((0, slice(None), slice(None)))

"""Parts of files that lie far away: the numbers of the whole, and nothing of it on trust."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pytest

from support.s3_server import S3Server
from taqstore import create_store, open_store
from taqstore.arrays import far_files
from taqstore.arrays.lazy import StoreArray
from taqstore.errors import StoreError
from taqstore.layout.template import Array, Template

DIMS = ("batch", "step", "layer", "channel")
SIZES = {"batch": 3, "step": 4, "layer": 7, "channel": 5, "bin": 6}
ARRAYS = (
    Array("max", DIMS, "float16", split="layer"),
    Array("mean", DIMS, "float32"),
    Array("histogram", (*DIMS[:3], "bin"), "uint32", split="layer", compress=True),
    Array("channel_histogram", (*DIMS, "bin"), "uint32", compress=True),
)
# Every file in parts, or as a whole.
CUT = {"in parts": 0, "whole": 1 << 20}


def template(batches: int = SIZES["batch"]) -> Template:
    return Template(
        "activations/mlp.fc2",
        "activations",
        {**SIZES, "batch": batches},
        ARRAYS,
        {"batch": (("batch",), np.arange(batches))},
        ("batch",),
        shard={"step": 3, "layer": 4},
    )


def values_of(array: Array) -> np.ndarray:
    shape = tuple(SIZES[dim] for dim in array.dims)
    return np.random.default_rng([3, len(array.name)]).integers(0, 99, shape).astype(array.dtype)


def write(address: str) -> str:
    """The shards at the edges are cut: 4 steps by 3, 7 layers by 4."""
    with create_store(address) as store:
        group = store.group(template())
        for batch in range(SIZES["batch"]):
            for array in ARRAYS:
                for step in (0, 3):
                    for layer in (0, 4):
                        part = values_of(array)[batch : batch + 1, step : step + 3]
                        part = part[:, :, layer : layer + 4]
                        start = (batch, step, layer, *(0 for _ in array.dims[3:]))
                        group.put(array.name, start, part)
            group.commit([(batch,)])
    return address


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A store in memory."""
    url = f"memory://{uuid.uuid4().hex}/s.zarr"
    yield write(url)
    fs, place = fsspec.core.url_to_fs(url)
    fs.rm(place, recursive=True)


def array_of(url: str, name: str) -> StoreArray:
    return open_store(url, chunks=None).array("activations/mlp.fc2", name)


KEYS: dict[str, tuple[Any, ...]] = {
    "all": (slice(None),) * 4,
    "one chunk": (1, slice(None), 2, slice(None)),
    "one element": (2, 3, 6, 0),
    "backwards": (slice(None, None, -1), slice(None), slice(6, 0, -3), slice(None)),
    "chunks apart": (slice(0, 1), slice(None), np.array([0, 3, 6]), slice(None)),
    "in any order, twice": (np.array([2, 0]), slice(1, 4), np.array([5, 1, 5]), slice(1, 3)),
}


@pytest.mark.parametrize("most", CUT)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.name)
def test_selections(
    url: str, array: Array, key: str, most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_files, "FETCHED_WHOLE", CUT[most])
    monkeypatch.setattr(far_files, "NEAR", 0)
    values, asked = values_of(array), KEYS[key]
    found = array_of(url, array.name).read(asked)
    expected = values
    for axis in reversed(range(len(asked))):
        expected = expected[(slice(None),) * axis + (asked[axis],)]
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("most", CUT)
@pytest.mark.parametrize("array", ARRAYS[:3], ids=lambda array: array.name)
def test_points(url: str, array: Array, most: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_files, "FETCHED_WHOLE", CUT[most])
    batch, layer = np.array([2, 0, 2, 1]), np.array([6, 0, 6, 3])
    for steps in (slice(0, 3), slice(None)):
        found = array_of(url, array.name).points((batch, steps, layer, slice(None)))
        expected = np.stack(
            [values_of(array)[b, steps, n] for b, n in zip(batch, layer, strict=True)]
        )
        assert found.tolist() == expected.tolist()


def file_of(url: str, array: str) -> tuple[Any, str, bytes]:
    fs, place = fsspec.core.url_to_fs(url)
    key = f"{place}/activations/mlp.fc2/{array}/c/0/0/0/0"
    return fs, key, fs.cat(key)


@pytest.mark.parametrize("array", ["max", "histogram"])
def test_of_a_large_file_what_is_read_is_compared(
    url: str, array: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_files, "FETCHED_WHOLE", 0)
    monkeypatch.setattr(far_files, "NEAR", 0)
    fs, key, raw = file_of(url, array)
    last, first = (0, 0, 3, slice(None)), (0, 0, 0, slice(None))
    changes = {
        "a chunk": bytes([raw[0] ^ 1]) + raw[1:],
        "the index": raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:],
        "longer": raw + b"0",
        "shorter": raw[:-1],
        "empty": b"",
    }
    try:
        for what, changed in changes.items():
            fs.pipe(key, changed)
            with pytest.raises(StoreError, match=f"{array}/c/0/0/0/0"):
                array_of(url, array).read(first)
            if what == "a chunk":
                assert array_of(url, array).read(last).size
        fs.rm(key)
        with pytest.raises(StoreError, match="missing, though its item is flagged"):
            array_of(url, array).read(first)
    finally:
        fs.pipe(key, raw)
    assert array_of(url, array).read(first).size


def test_ranges_are_asked_for(bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = write(f"{bucket}/s.zarr")
    monkeypatch.setattr(far_files, "FETCHED_WHOLE", 0)
    asked = {range(1, 2): 2, range(1, 3): 2, range(0, 4, 3): 3}
    for near, extra in ((0, 0), (1 << 10, -1)):
        monkeypatch.setattr(far_files, "NEAR", near)
        for layers, expected in asked.items():
            array = array_of(address, "max")
            key = (0, 0, np.array(layers), slice(None))
            with s3.counted() as count:
                array.read(key)
            assert count.total == expected + (extra if expected == 3 else 0), count
            assert all(request.range for request in count.log), count
            assert count["HEAD"] == 0
            with s3.counted() as count:  # kept in memory, index and all
                array.read(key)
            assert count.total == 0, count


def test_another_process_reads_the_same(url: str) -> None:
    view = open_store(url, chunks=None)
    array = view.array("activations/mlp.fc2", "max")
    again = pickle.loads(pickle.dumps([array, array]))
    key = (slice(None),) * 4
    assert again[0].read(key).tolist() == again[1].read(key).tolist() == array.read(key).tolist()

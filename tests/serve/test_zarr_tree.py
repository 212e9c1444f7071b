"""The Zarr tree over HTTP is what the library shows, to other clients too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import taqstore
from support.running import Running, running
from taqstore.testing import make_store

CHUNK = "activations/mlp.fc2/min/c/0/0/0/0"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("served") / "a run.zarr")


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Running]:
    with running(store) as found:
        yield found


def test_xarray_reads_every_group_as_the_library_does(served: Running, store: Path) -> None:
    own = taqstore.open_store(store, incomplete=True)
    assert len(own) > 3
    for path, expected in own.items():
        url = f"{served.url}/zarr/a%20run.zarr/{path}"
        found = xr.open_zarr(url, consolidated=False, chunks=None)
        assert set(found.variables) == set(expected.variables)
        for name in expected.variables:
            one, other = found[name].values, expected[name].values
            if one.dtype.kind in "fc":
                np.testing.assert_array_equal(one, other)
            else:
                assert one.tolist() == other.tolist(), (path, name)


def test_zarr_walks_the_whole_tree(served: Running, store: Path) -> None:
    root = zarr.open_group(f"{served.url}/zarr/a%20run.zarr", mode="r")
    assert set(root["activations"].keys()) == {
        p.name for p in (store / "activations").iterdir() if p.is_dir()
    }


def test_the_library_reads_what_it_serves(served: Running, store: Path) -> None:
    found, own = taqstore.open_store(f"{served.url}/zarr/a%20run.zarr"), taqstore.open_store(store)
    assert found.digest == own.digest
    for path in own:
        xr.testing.assert_identical(found[path].compute(), own[path].compute())


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-3", 0, 4),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=0-999999999", 0, None),
    ],
)
def test_a_range_is_that_part_of_the_file(
    served: Running, store: Path, asked: str, start: int, stop: int | None
) -> None:
    raw = (store / CHUNK).read_bytes()
    found = served.get(f"/zarr/a%20run.zarr/{CHUNK}", Range=asked)
    assert found.status == 206
    assert found.body == raw[start:stop]
    first = start % len(raw)
    assert (
        found.headers["content-range"] == f"bytes {first}-{first + len(found.body) - 1}/{len(raw)}"
    )


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "lines=0-1", "bytes=4-1", "bytes=-", "bytes=a-", "bytes=" + "9" * 30 + "-"],
)
def test_what_is_no_single_range_is_answered_by_the_whole(
    served: Running, store: Path, asked: str
) -> None:
    found = served.get(f"/zarr/a%20run.zarr/{CHUNK}", Range=asked)
    assert (found.status, found.body) == (200, (store / CHUNK).read_bytes())


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(
    served: Running, store: Path, asked: str
) -> None:
    found = served.get(f"/zarr/a%20run.zarr/{CHUNK}", Range=asked)
    assert found.status == 416
    assert found.headers["content-range"] == f"bytes */{(store / CHUNK).stat().st_size}"


@pytest.mark.parametrize(
    "key", [CHUNK, "zarr.json", "activations/mlp.fc2/zarr.json", "activations/mlp.fc2/step/c/0"]
)
def test_a_known_file_is_not_sent_again(served: Running, store: Path, key: str) -> None:
    first = served.get(f"/zarr/a%20run.zarr/{key}")
    assert (first.status, first.body) == (200, (store / key).read_bytes())
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["accept-ranges"] == "bytes"
    again = served.get(f"/zarr/a%20run.zarr/{key}", If_None_Match=f'"x", {first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    head = served.get(f"/zarr/a%20run.zarr/{key}", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(first.body))
    changed = served.get(f"/zarr/a%20run.zarr/{key}", Range="bytes=0-0", If_Range='"other"')
    assert changed.status == 200

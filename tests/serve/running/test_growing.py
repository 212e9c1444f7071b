"""A store that is written to while it is served: readers see whole items, and new ones soon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from support.explored_stores import SHAPE
from support.growing_store import write_images
from support.served import Served, serving
from taqstore.store.reader import open_store
from taqstore.testing import make_store

GROUP = "activations/mlp.fc2"
FIRST = replace(SHAPE, images=6)


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Path, Served]]:
    path = tmp_path / "run.zarr"
    write_images(path, FIRST, range(1))
    with serving(path) as served:
        yield path, served


def absmax(tensors: xr.Dataset) -> np.ndarray:
    """Of every step, over what the batches have seen."""
    ends = np.maximum(-tensors["tensor_min"], tensors["tensor_max"])
    return ends.max("batch").values.astype(float)


def test_what_is_written_is_seen(growing: tuple[Path, Served]) -> None:
    path, served = growing
    before = served.document("/stores/run.zarr/map", quantity="absmax")
    write_images(path, FIRST, range(1, 3))
    after = served.document("/stores/run.zarr/map", quantity="absmax")
    assert after != before
    store = open_store(path)
    expected = {
        (group.partition("/")[2], layer): absmax(store[group].sel(layer=layer))
        for group in store
        if group.startswith("activations/")
        for layer in store[group].layer.values.tolist()
    }
    assert {(row["site"], row["layer"]) for row in after["rows"]} == set(expected)
    for row in after["rows"]:
        wanted = expected[row["site"], row["layer"]]
        assert np.array_equal(np.array(row["values"], float), wanted), row


def test_readers_meet_no_half_written_item(growing: tuple[Path, Served]) -> None:
    path, served = growing
    url = served.url(f"/zarr/run.zarr/{GROUP}")
    whole = make_store(path.with_name("whole.zarr"), shape=FIRST, mantissa_bits=4)
    expected = open_store(whole)[GROUP]["max"].load()
    done = threading.Event()
    seen: list[int] = []

    def read(_: int) -> None:
        last = False
        while not last:
            last = done.is_set()
            found = xr.open_zarr(url, consolidated=False, chunks=None)["max"]
            wanted = expected.transpose(*found.dims)
            # A chunk is of one batch and one layer: there as it was written, or not there.
            same = (found == wanted.values).transpose("batch", "layer", ...).values
            flat = same.reshape(*same.shape[:2], -1)
            assert np.array_equal(flat.all(-1), flat.any(-1))
            seen.append(int(flat.all((1, 2)).sum()))

    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read, number) for number in range(4)]
        try:
            write_images(path, FIRST, range(1, FIRST.images))
        finally:
            done.set()
        for one in reading:
            one.result()
    assert max(seen) == FIRST.images
    assert served.process.poll() is None

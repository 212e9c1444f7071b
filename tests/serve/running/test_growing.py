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
from support.served import Served, serving
from taqstore.statistics.histogram import Layout
from taqstore.store.reader import open_store
from taqstore.store.writer import create_store
from taqstore.testing import make_store, raw_activations
from taqstore.testing.store import activations_templates, write_batch

GROUP = "activations/mlp.fc2"
FIRST = replace(SHAPE, images=6)
LAYOUT = Layout("float16", 4)


def write(path: Path, images: range) -> None:
    """Batches of some images, in a process that adds them one after another."""
    with create_store(path) as store:
        writers = [
            store.group(template) for template in activations_templates(FIRST, layout=LAYOUT)
        ]
        for image in images:
            batch = [raw_activations(FIRST, seed=0, image=image, step=s) for s in FIRST.stats_steps]
            for writer in writers:
                write_batch(writer, image, batch, LAYOUT)


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Path, Served]]:
    path = tmp_path / "run.zarr"
    write(path, range(1))
    with serving(path) as served:
        yield path, served


def test_what_is_written_is_seen(growing: tuple[Path, Served]) -> None:
    path, served = growing
    before = served.document("/stores/run.zarr/map", quantity="absmax")
    write(path, range(1, 3))
    after = served.document("/stores/run.zarr/map", quantity="absmax")
    assert after != before
    store = open_store(path)
    expected = {
        (group.partition("/")[2], layer): store[group]["tensor_absmax"]
        .sel(layer=layer)
        .max("batch")
        for group in store
        if group.startswith("activations/")
        for layer in store[group].layer.values.tolist()
    }
    assert {(row["site"], row["layer"]) for row in after["rows"]} == set(expected)
    for row in after["rows"]:
        wanted = expected[row["site"], row["layer"]].values
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
            write(path, range(1, FIRST.images))
        finally:
            done.set()
        for one in reading:
            one.result()
    assert max(seen) == FIRST.images
    assert served.process.poll() is None

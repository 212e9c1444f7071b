"""Others read a store in a bucket: zarr-python, xarray, icechunk; what they see is what we see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from obstore.store import S3Store
from zarr.storage import ObjectStore

from support.s3_server import S3Server
from support.uploaded import uploaded
from taqstore import open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, blocks=1, hidden=8, image_tokens=6, text_tokens=3, stats_stride=6)
SITE = "activations/mlp.fc2"


@pytest.fixture
def theirs(tmp_path: Path, bucket: str) -> tuple[Any, str]:
    """The store as a storage object of zarr, and its address."""
    address = uploaded(make_store(tmp_path / "s.zarr", shape=SHAPE), f"{bucket}/s.zarr")
    client = S3Store(bucket.removeprefix("s3://"), prefix="s.zarr")
    return ObjectStore(client, read_only=True), address


def test_zarr_reads_every_array(theirs: tuple[Any, str]) -> None:
    root, store = zarr.open_group(theirs[0], mode="r"), open_store(theirs[1])
    for path in store:
        for name, array in store[path].data_vars.items():
            there: Any = root[f"{path}/{name}"]
            np.testing.assert_array_equal(there[:], array.values)


def test_xarray_opens_a_group(theirs: tuple[Any, str]) -> None:
    ours = open_store(theirs[1])[SITE]
    with xr.open_zarr(theirs[0], group=SITE) as found:
        for name, array in ours.data_vars.items():
            np.testing.assert_array_equal(found[name].values, array.values)
        np.testing.assert_array_equal(found["layer"].values, ours["layer"].values)


def test_icechunk_takes_a_group_in(theirs: tuple[Any, str], s3: S3Server, bucket: str) -> None:
    icechunk = pytest.importorskip("icechunk", reason="icechunk is not installed")
    ours = open_store(theirs[1])[SITE]
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    with xr.open_zarr(theirs[0], group=SITE) as found:
        found.drop_encoding().to_zarr(session.store, group=SITE, consolidated=False)
    session.commit("taken in")
    kept = repository.readonly_session("main").store
    with xr.open_zarr(kept, group=SITE, consolidated=False) as found:
        for name, array in ours.data_vars.items():
            np.testing.assert_array_equal(found[name].values, array.values)

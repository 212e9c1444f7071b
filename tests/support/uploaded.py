"""A store that was made on this disk, put into a bucket as it is."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import obstore

from support.s3_server import S3Server
from taqstore.place.location import Location
from taqstore.place.object_backend import ObjectBackend
from taqstore.place.remote.options import storage


@contextmanager
def in_a_bucket(s3: S3Server, folder: Path) -> Iterator[str]:
    """The address of a copy of a store in a bucket that is there while within."""
    bucket = s3.make_bucket()
    with storage(s3.options()):
        address = uploaded(folder, f"s3://{bucket}/s.zarr")
    yield address
    s3.drop_bucket(bucket)


def uploaded(folder: Path, address: str) -> str:
    """Put all files of a store at an address of a bucket; the address."""
    backend = Location.parse(address).backend(read_only=False)
    assert isinstance(backend, ObjectBackend)
    files = [path for path in folder.rglob("*") if path.is_file()]

    def put(path: Path) -> None:
        obstore.put(backend.client, path.relative_to(folder).as_posix(), path.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, files))
    return address

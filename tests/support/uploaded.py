"""A store that was made on this disk, put into a bucket as it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore

from taqstore.place.location import Location
from taqstore.place.object_backend import ObjectBackend


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

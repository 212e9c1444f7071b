"""A store that is there already, put into a bucket file by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taqstore.place.location import Location


def put_store(folder: Path, address: str, options: dict[str, Any] | None = None) -> str:
    """Copy a local store to an address, its root last; returns the address."""
    backend = Location.parse(address, options).backend(read_only=False)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.parent == folder):
        backend.write(path.relative_to(folder).as_posix(), [path.read_bytes()])
    backend.flush()
    return address

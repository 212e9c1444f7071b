"""What tells that a store was written to, without reading what it holds.

A writer renames files into place: a document that changed has another inode, a folder of flags
another time and another number of names. On a local disk both are asked of the disk, in some
microseconds; far away small documents and names of flags are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from taqstore.errors import StoreError
from taqstore.metadata.root import KEY
from taqstore.names import COMMIT
from taqstore.place.backend import Backend

Identity: TypeAlias = tuple[Any, ...]
"""Equal as long as nothing was written."""


def identity_of_root(backend: Backend, folder: Path | None) -> Identity:
    """Of a store's root document: its groups, and what was recorded."""
    if folder is not None:
        return _of_file(folder / KEY)
    return _of_content(backend.read(KEY))


def identities_of_groups(
    backend: Backend, folder: Path | None, groups: Iterable[str]
) -> dict[str, Identity]:
    """Of groups by path: what each is, and which of its items are flagged."""
    if folder is not None:
        return {group: _of_folder(folder / group) for group in groups}
    paths = list(groups)
    documents = backend.read_many(f"{path}/{KEY}" for path in paths)
    return {
        path: (*_of_content(documents[f"{path}/{KEY}"]), *_flags(backend, path)) for path in paths
    }


def _flags(backend: Backend, path: str) -> Identity:
    try:
        return tuple(sorted(backend.sizes(f"{path}/{COMMIT}").items()))
    except StoreError:  # a server that lists nothing: what it is asked for tells
        return ()


def _of_folder(folder: Path) -> Identity:
    flags = folder / COMMIT
    try:
        # Two flags in one tick of the disk's clock have one time, but not one number of names.
        names = len(os.listdir(flags))
    except OSError:
        names = 0
    return *_of_file(folder / KEY), *_of_file(flags), names


def _of_file(path: Path) -> Identity:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _of_content(raw: bytes | None) -> Identity:
    return (None,) if raw is None else (len(raw), sha256(raw).digest())

"""Groups that are removed: those left before their first item, and those needed no more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from taqstore.errors import StoreError
from taqstore.items.flags import Items, read_group
from taqstore.metadata.root import GROUP_DOCUMENT, KEY, without_copies, write_root
from taqstore.metadata.sealed import encoded
from taqstore.names import COMMIT
from taqstore.place.backend import Backend
from taqstore.place.location import Location


def remove_unfilled(
    location: Location, backend: Backend, paths: Collection[str], *, among: Collection[str]
) -> None:
    """Remove those of these groups that hold no whole item; none while `among` is worked on.

    A damaged group is kept: what it held may be mended. The caller holds the store's lock.
    """
    empty = unfilled(location, backend, paths, among)
    if empty:
        root = without_copies(backend, str(location))
        # Out of the list first: what is listed and not there is lost.
        remaining = tuple(path for path in root.groups if path not in empty)
        write_root(backend, replace(root, groups=remaining))
        for path in empty:
            backend.delete(path)


def unfilled(
    location: Location, backend: Backend, paths: Collection[str], among: Collection[str]
) -> list[str]:
    """Those of these groups that hold no whole item; none while `among` is worked on."""
    found = {path: _items(backend, path, str(location)) for path in sorted({*paths, *among})}
    if any(items is not None and _claimed(backend, p, items) for p, items in found.items()):
        return []
    return [p for p in paths if (items := found[p]) is not None and not items.mask.any()]


def _items(backend: Backend, path: str, where: str) -> Items | None:
    try:
        return read_group(backend, path, where=where)
    except StoreError:
        return None


def _claimed(backend: Backend, path: str, items: Items) -> bool:
    """Whether any process holds an item of a group."""
    return backend.any_claimed(path, np.ndindex(*items.shape), f"{path}/{COMMIT}")


def drop_groups(backend: Backend, paths: Collection[str], *, where: str) -> None:
    """Take groups out of the root's list, then away; those that are not there are passed over.

    Killed in between, a group is what the format calls unfinished: it holds no data, readers and
    `verify` pass it over, and who makes it again, or drops it again, removes what is left. The
    caller holds the store's lock.
    """
    there = [path for path in paths if backend.names(path)]
    root = without_copies(backend, where)
    # Out of the list first: what is listed and not there is lost.
    remaining = tuple(path for path in root.groups if path not in paths)
    if remaining != root.groups:
        write_root(backend, replace(root, groups=remaining))
    for path in there:
        _remove(backend, path)


def _remove(backend: Backend, path: str) -> None:
    # The document goes last, saying nothing: flags without one would be data that are lost.
    backend.write_all({f"{path}/{KEY}": encoded(GROUP_DOCUMENT)})
    backend.flush()
    for name in backend.names(path):
        if name != KEY:
            backend.delete(f"{path}/{name}")
    backend.delete(path)


def is_dropped(backend: Backend, path: str) -> bool:
    """Whether a group's document says nothing: it was being dropped when its writer was killed."""
    return backend.read(f"{path}/{KEY}") == encoded(GROUP_DOCUMENT)

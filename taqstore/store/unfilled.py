"""Groups that a run left before its first item was whole: nothing is lost with them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from taqstore.errors import StoreError
from taqstore.items.flags import Items, read_group
from taqstore.metadata.root import without_copies, write_root
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

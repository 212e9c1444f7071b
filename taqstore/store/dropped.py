"""Groups that a run needs no more, taken out of a store that stays whole at every moment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from taqstore.metadata.root import GROUP_DOCUMENT, KEY, without_copies, write_root
from taqstore.metadata.sealed import encoded
from taqstore.place.backend import Backend


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

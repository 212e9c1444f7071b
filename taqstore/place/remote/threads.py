"""Threads of the one process that writes to a store: its lock and its items, by name of the store.

Other processes are kept away by a note; see `single_writer`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from taqstore.errors import StoreError, problem

_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_CLAIMED: set[tuple[str, str]] = set()
_BUSY = threading.Lock()
_PATIENCE = 60.0


@contextmanager
def locked(name: str, timeout: float | None) -> Iterator[None]:
    """Hold the lock of a store among the threads of this process.

    Raises
    ------
    StoreError
        Another one has held it for so many seconds.
    """
    with _BUSY:
        held = _LOCKS[name]
    if not held.acquire(timeout=_PATIENCE if timeout is None else timeout):
        what = "another thread has been writing to this store for long"
        raise StoreError(problem(what, where=name, remedy="wait for it, and try again"))
    try:
        yield
    finally:
        held.release()


@contextmanager
def claimed(name: str, group: str, item: tuple[int, ...]) -> Iterator[bool]:
    """Hold an item among the threads of this process; False where another one does."""
    claim = name, f"{group}/{item}"
    with _BUSY:
        mine = claim not in _CLAIMED
        _CLAIMED.add(claim)
    try:
        yield mine
    finally:
        if mine:
            _CLAIMED.discard(claim)


def any_claimed(name: str, group: str, items: Iterable[tuple[int, ...]]) -> bool:
    """Whether a thread of this process holds any of these items."""
    return any((name, f"{group}/{item}") in _CLAIMED for item in items)

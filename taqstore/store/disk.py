"""What a local disk needs: locks beside a store, and its refusals put into words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from taqstore.errors import StoreError, problem
from taqstore.store.location import Location


def lock(location: Location, suffix: str, *, timeout: float) -> AbstractContextManager[Any]:
    """The lock `suffix` beside a store; nothing where the store is not on a local disk."""
    from filelock import FileLock

    if location.folder is None:
        return nullcontext()
    path = location.beside(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, timeout=timeout)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Take a lock without waiting; yields False where another process holds it."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # Unlinked while held: whoever opened it before us finds the item's flag set afterwards.
        with suppress(FileNotFoundError):
            path.unlink()
        lock.release()


_DISK = {
    errno.ENOSPC: ("the disk is full", "free space, then run again with --resume"),
    errno.EDQUOT: ("the disk quota is used up", "free space, then run again with --resume"),
    errno.EFBIG: ("the file would be too large", "raise the limit, then run again with --resume"),
    errno.EROFS: ("the target is read-only", "choose a writable path"),
    errno.EACCES: ("the target may not be written", "check its permissions"),
    errno.EPERM: ("the target may not be written", "check its permissions"),
    errno.ENOTDIR: ("a file is in the way of the store", "choose another path"),
}


@contextmanager
def disk_errors(location: Location) -> Iterator[None]:
    """Turn what a disk refuses into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        what, remedy = _DISK[error.errno]
        raise StoreError(
            problem(what, where=str(error.filename or location), remedy=remedy)
        ) from error

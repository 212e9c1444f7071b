"""What a local disk needs: locks beside a store, and its refusals put into words."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from taqstore.errors import StoreError, problem
from taqstore.place.location import Location
from taqstore.place.remote.owners import command_line

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_SECONDS = 60.0
"""How long a writer waits for another one that changes the structure of the same store."""
_SILENT_SECONDS = 1.0
HOLDER = "holder"
"""Suffix of the note beside a store that says who holds its lock."""


@contextmanager
def lock(location: Location, suffix: str, *, timeout: float | None = None) -> Iterator[None]:
    """Hold the lock `suffix` beside a store; nothing where the store is not on a local disk.

    Who waits for more than a second says so on stderr, once: for whom, and since when.

    Parameters
    ----------
    timeout
        Seconds to wait for it; `LOCK_SECONDS` by default.

    Raises
    ------
    StoreError
        Another process holds it for longer than that, or there are no locks here.
    """
    from filelock import FileLock

    if location.folder is None:
        yield
        return
    path = location.beside(suffix)
    _make(path, location)
    held = FileLock(path)
    _wait(held, location, LOCK_SECONDS if timeout is None else timeout)
    note = location.beside(HOLDER)
    try:
        with suppress(OSError):  # a note is talk: the lock holds without it
            note.write_text(json.dumps(_myself()), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        held.release()


def _make(path: Path, location: Location) -> None:
    """Make a lock's file: what the disk refuses is told now, not waited for as if it were held."""
    with disk_errors(location):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))


def _wait(held: BaseFileLock, location: Location, timeout: float) -> None:
    if _acquired(held, min(_SILENT_SECONDS, timeout), location):
        return
    who = holder(location)
    _log.warning("waiting for %s: %s is writing to it", location, who)
    if not _acquired(held, max(0.0, timeout - _SILENT_SECONDS), location):
        what = f"another process has been writing to this store for {timeout:g} s"
        remedy = "wait for it, or stop it, and try again"
        raise StoreError(problem(what, where=str(location), found=holder(location), remedy=remedy))


def _acquired(held: BaseFileLock, timeout: float, location: Location) -> bool:
    from filelock import Timeout

    try:
        with disk_errors(location):
            held.acquire(timeout=timeout)
    except Timeout:
        return False
    except NotImplementedError as error:
        raise _without_locks(location, str(error)) from error
    return True


def holder(location: Location) -> str:
    """Who holds the lock of a store, as its note beside the store says."""
    note = location.beside(HOLDER)
    try:
        told = json.loads(note.read_bytes()[:10_000])
        return (
            f"process {told['process']} on {told['host']} ({told['command']}), "
            f"since {told['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _myself() -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "command": command_line(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def try_lock(path: Path, location: Location) -> Iterator[bool]:
    """Take a lock without waiting; yields False where another process holds it.

    Raises
    ------
    StoreError
        There are no locks here.
    """
    from filelock import FileLock

    _make(path, location)
    lock = FileLock(path)
    if not _acquired(lock, 0.0, location):
        yield False
        return
    try:
        yield True
    finally:
        # Unlinked while held: whoever opened it before us finds the item's flag set afterwards.
        with suppress(FileNotFoundError):
            path.unlink()
        lock.release()


def is_held(path: Path) -> bool:
    """Whether any process holds a lock; one that cannot be tried counts as held."""
    from filelock import FileLock, Timeout

    tried = FileLock(path, timeout=0)
    try:
        with tried:
            return False
    except (Timeout, OSError):
        return True


def _without_locks(location: Location, found: str) -> StoreError:
    what, remedy = "this file system has no locks", "keep the store on a local disk"
    return StoreError(problem(what, where=str(location), found=found, remedy=remedy))


_RESUME = "then run again with --resume"
_MOUNT = "check the disk and its connection, then see taqstore verify"
_DISK = {
    errno.ENOSPC: ("the disk is full", f"free space, {_RESUME}"),
    errno.EDQUOT: ("the disk quota is used up", f"free space, {_RESUME}"),
    errno.EFBIG: ("the file would be too large", f"raise the limit, {_RESUME}"),
    errno.EROFS: ("the target is read-only", "choose a writable path"),
    errno.EACCES: ("the target may not be written", "check its permissions"),
    errno.EPERM: ("the target may not be written", "check its permissions"),
    errno.EEXIST: ("a file is in the way of the store", "choose another path"),
    errno.ENOTDIR: ("a file is in the way of the store", "choose another path"),
    errno.ENOLCK: ("this file system has no locks", "keep the store on a local disk"),
    errno.ENOSYS: ("this file system has no locks", "keep the store on a local disk"),
    errno.EIO: ("the disk failed", _MOUNT),
    errno.ESTALE: ("the network disk has lost this file", _MOUNT),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter path"),
    errno.ELOOP: ("links that lead in a circle", "choose another path"),
}


@contextmanager
def disk_errors(location: Location) -> Iterator[None]:
    """Turn what a disk refuses into one clear line."""
    try:
        yield
    except OSError as error:
        # Without a number it is none of the system's: a codec's, a remote store's, a time-out.
        if error.errno is None:
            raise
        what, remedy = _DISK.get(error.errno, (error.strerror or str(error), "try again"))
        raise StoreError(
            problem(what, where=str(error.filename or location), remedy=remedy)
        ) from error

"""A folder that stores are to lie in: room, flushes and locks."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from taqstore.place.sizes import format_bytes

from .check import Check

LITTLE = 2 << 30
"""Bytes free below which a run of some hundred images does not fit."""
SLOW_FLUSH = 0.1
"""Seconds of a flush from which on commits are most of what a fast model waits for."""
_FLUSHES = 5


def place_checks(folder: Path) -> Iterator[Check]:
    """What a folder offers: it is written to, and left as it was."""
    free = shutil.disk_usage(folder)
    little = free.free < LITTLE
    found = f"{format_bytes(free.free)} free of {format_bytes(free.total)} at {folder}"
    yield Check("disk", found, "absent" if little else "ok", "choose another" if little else "")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".taqstore-doctor-") as name:
            yield _flush(Path(name))
            yield _lock(Path(name))
    except OSError as error:
        text = f"{folder} cannot be written: {error.strerror or error}"
        yield Check("writing", text, "absent", "choose a folder of yours for new stores")


def memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_check() -> Check:
    """The same, for people."""
    return Check("memory", format_bytes(memory_bytes()))


def _flush(folder: Path) -> Check:
    """The median over a few files of a megabyte, as a commit of an image writes one."""
    seconds = []
    for number in range(_FLUSHES):
        begun = time.perf_counter()
        with (folder / str(number)).open("wb") as stream:
            stream.write(bytes(1 << 20))
            stream.flush()
            os.fsync(stream.fileno())
        seconds.append(time.perf_counter() - begun)
    median = statistics.median(seconds)
    found = f"a file of 1 MB is on the disk after {median * 1000:.1f} ms"
    slow = median > SLOW_FLUSH
    return Check("flush", found, "slow" if slow else "ok", "a local disk" if slow else "")


def _lock(folder: Path) -> Check:
    try:
        with FileLock(folder / "lock", timeout=1):
            return Check("locks", "several writers may share a store here")
    except (OSError, NotImplementedError, Timeout):
        remedy = "write from one process only, or to a local disk"
        return Check("locks", "none here", "absent", remedy)

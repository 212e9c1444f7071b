"""A bounded area of the local disk for what was fetched from far away.

It lies in the folder for temporary files and belongs to one process: deleted when that ends, or,
where it was killed, by the next one that makes such an area.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

from taqstore.errors import MisuseError, problem
from taqstore.place.plain_files import PARTIAL, is_leftover, owner
from taqstore.place.whole_files import whole_file

VARIABLE = "TAQSTORE_STAGING"
"""Environment variable with the bytes that may be staged."""
USUAL_BYTES = 32 * 10**9
"""What is staged at most unless told, and no more than half of what is free."""
_NAME = "taqstore-staged"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MAPPED = 1 << 20
_log = logging.getLogger(__name__)


def size_of(text: str) -> int:
    """Bytes as a user writes them; powers of 1000.

    Raises
    ------
    MisuseError
        It is no size.

    >>> size_of("1.5GB")
    1500000000
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise MisuseError(problem(f"no size: {text[:40]!r}", remedy="write it like 20GB; 0: none"))
    return int(float(found[1]) * _UNITS[found[2]])


def staging_bytes(given: int | None = None) -> int:
    """Bytes that may be staged: as given, as the environment says, or the usual ones.

    Raises
    ------
    MisuseError
        The environment variable is no size.
    """
    if given is not None:
        return given
    told = os.environ.get(VARIABLE)
    if told is not None:
        return size_of(told)
    with suppress(OSError):
        return min(USUAL_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2)
    return 0


class Staged:
    """Files of this process, the least lately used of which make room; safe to use from threads.

    Attributes
    ----------
    folder
        Where they lie; for this user alone.
    most
        Bytes at most.
    """

    def __init__(self, most: int) -> None:
        self.most, self.process = most, os.getpid()
        _sweep()
        name = f"{_NAME}.{owner()}.{secrets.token_hex(4)}{PARTIAL}"
        self.folder = Path(tempfile.gettempdir(), name)
        self.folder.mkdir(mode=0o700)
        atexit.register(self.remove)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def read(self, name: str) -> bytes | memoryview | None:
        """What was kept under a name, mapped where it is large; None where nothing is."""
        file = _file_of(name)
        with self._lock:
            if file not in self._sizes:
                return None
            self._sizes.move_to_end(file)
        try:
            with (self.folder / file).open("rb") as kept:
                if os.fstat(kept.fileno()).st_size < _MAPPED:
                    return kept.read()
                return memoryview(whole_file(kept.fileno()))
        except OSError:  # another thread made room, or someone cleans up that folder
            return None

    def keep(self, name: str, content: bytes | memoryview) -> None:
        """Keep something, where there is room for it once others have gone."""
        file = _file_of(name)
        if len(content) > self.most:
            return
        with self._lock:
            gone = self._make_room(len(content))
            # What other threads are writing at this moment cannot make room.
            fits = self._bytes + len(content) <= self.most
            self._bytes += len(content) if fits else 0
        for old in gone:
            with suppress(OSError):
                (self.folder / old).unlink()
        if not fits:
            return
        beside = self.folder / f"{file}.{secrets.token_hex(4)}"
        try:
            beside.write_bytes(content)
            beside.replace(self.folder / file)
        except OSError as error:  # what cannot be staged is fetched again
            _log.debug("not staged: %s", error)
            with suppress(OSError):
                beside.unlink()
            with self._lock:
                self._bytes -= len(content)
            return
        with self._lock:
            self._bytes -= self._sizes.pop(file, 0)
            self._sizes[file] = len(content)

    def drop(self, name: str) -> None:
        """Keep something no longer."""
        file = _file_of(name)
        with self._lock:
            self._bytes -= self._sizes.pop(file, 0)
        with suppress(OSError):
            (self.folder / file).unlink()

    def _make_room(self, size: int) -> list[str]:
        gone = []
        while self._sizes and self._bytes + size > self.most:
            old, freed = self._sizes.popitem(last=False)
            self._bytes -= freed
            gone.append(old)
        return gone

    def remove(self) -> None:
        """Delete all of it; a child that was forked leaves it to its parent."""
        if os.getpid() == self.process:
            shutil.rmtree(self.folder, ignore_errors=True)


def _file_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _sweep() -> None:
    """Delete areas of processes of this host and user that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_NAME}.*{PARTIAL}"):
        with suppress(OSError):
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if ours and is_leftover(folder.name):
                shutil.rmtree(folder, ignore_errors=True)


_AREAS: dict[int, Staged] = {}
_MAKING = Lock()


def staged_here(most: int) -> Staged | None:
    """The area of this process, with room for so many bytes; None where none can be made."""
    process = os.getpid()
    with _MAKING:
        if process not in _AREAS:
            try:
                _AREAS[process] = Staged(most)
            except OSError as error:
                _log.debug("nothing is staged: %s", error)
                return None
        area = _AREAS[process]
        area.most = most
        return area

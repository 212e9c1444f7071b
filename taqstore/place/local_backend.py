"""A store in a folder of a local disk: files are made beside it, flushed and renamed into place."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from taqstore.place.backend import Item, Piece
from taqstore.place.plain_files import (
    ABSENT,
    PARTIAL,
    check_folder,
    check_key,
    flush_paths,
    is_foreign,
    is_plain_folder,
    not_plain,
    open_below,
    owner,
    unreadable,
)

if TYPE_CHECKING:
    from taqstore.place.location import Location

# Folders that were flushed and need not be again: enough for a group, little for the memory.
_MOST_KNOWN = 4096
# Of a file in the work folder, which other writers take away.
_TRIES = 8
# Pieces up to the first are written together, up to the second: each write lets go of the
# interpreter, for which a running model waits then.
_SMALL, _TOGETHER = 1 << 16, 1 << 18
WORK = "work"
"""Suffix of the folder beside a store in which files are made."""


class LocalBackend:
    """A folder of a local disk; safe to use from several threads.

    Files are made in a work folder beside it and renamed into place, so that what a killed writer
    leaves is found without looking through the store.
    """

    remote = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real = Path(os.path.realpath(folder))
        self._work = self._real.parent / f".{self._real.name}.{WORK}"
        self._root = str(self._real)
        self._unflushed: dict[str, int] = {}
        # Folders that are there, with no link on the way, and whether files are made beside them.
        self._known: dict[str, bool] = {}
        self._clock = itertools.count()
        self._lock, self._flushing = Lock(), Lock()

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]

    def path(self, key: str) -> Path:
        """The file of a key.

        Raises
        ------
        StoreError
            It, or a link on the way to it, may lead out of the store.
        """
        check_key(key)
        path = self._real / key
        check_folder(path.parent)
        return path

    def read(self, key: str) -> bytes | None:
        """The whole content; None where there is no such file."""
        try:
            fd = open_below(self.path(key))
        except ABSENT:
            return None
        try:
            with open(fd, "rb") as file:
                return file.read()
        except (OSError, MemoryError) as error:
            raise unreadable(self.path(key), error) from error

    def remembered(self, key: str) -> bytes | None:
        """Nothing: what is asked for is read."""
        return None

    def read_range(self, key: str, start: int, length: int) -> bytes | None:
        """So many bytes from a place on, fewer where the file ends; None where there is none."""
        try:
            fd = open_below(self.path(key))
        except ABSENT:
            return None
        try:
            with open(fd, "rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise unreadable(self.path(key), error) from error

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The whole contents, one after the other: a disk is not faster otherwise."""
        return {key: self.read(key) for key in keys}

    def write(self, key: str, pieces: Iterable[Piece]) -> int:
        """Write beside the file, flush, rename; the name is durable after `flush`."""
        path, folder = self._place(key)
        temporary, file = self._temporary(path, folder)
        try:
            with file:
                total = _write_pieces(file.fileno(), pieces)
                os.fsync(file.fileno())
            self._put(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        return total

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Write all beside their places, flush them, rename them in order.

        Flushed together, small files share the disk's commits: a group of 25 takes a tenth of the
        time that one after the other takes.
        """
        waiting: list[tuple[str, str]] = []
        try:
            for key, content in files.items():
                path, folder = self._place(key)
                temporary, file = self._temporary(path, folder)
                waiting.append((temporary, path))
                with file:
                    _write_all(file.fileno(), content)
            flush_paths([temporary for temporary, _ in waiting])
            while waiting:
                self._put(*waiting[0])
                waiting.pop(0)
        except BaseException:
            for temporary, _ in waiting:
                with suppress(OSError):
                    os.unlink(temporary)
            raise

    def _place(self, key: str) -> tuple[str, str]:
        """The file of a key and its folder, which is made; raises as `path`."""
        check_key(key)
        path = f"{self._root}/{key}"
        folder = path.rpartition("/")[0]
        if folder in self._known:
            if is_plain_folder(folder):
                return path, folder
            self._known.clear()
        self._make_folders(folder)
        return path, folder

    def _temporary(self, path: str, folder: str) -> tuple[str, FileIO]:
        """A new file to be renamed to `path`, open for writing."""
        with suppress(*ABSENT):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise not_plain(Path(path))
        for _ in range(_TRIES):
            # Any writer that is done removes the work folder where it is empty, at any time.
            with suppress(FileNotFoundError):
                temporary = self._work_name(path, folder)
                return temporary, FileIO(temporary, "x")
            self._known.clear()
            self._make_folders(folder)
            with suppress(FileExistsError):
                os.mkdir(self._work)
        temporary = self._work_name(path, folder)
        return temporary, FileIO(temporary, "x")

    def _work_name(self, path: str, folder: str) -> str:
        name = f"{os.path.basename(path)}.{owner()}.{secrets.token_hex(4)}{PARTIAL}"
        # A store may be a disk of its own, where nothing can be renamed into from beside.
        beside = self._known.get(folder)  # another thread may have forgotten it
        return f"{self._work if beside or self._is_beside(folder) else folder}/{name}"

    def _put(self, temporary: str, path: str) -> None:
        os.replace(temporary, path)
        # After the rename: another thread's flush may take and forget the folder at any time.
        self._appeared_in(path.rpartition("/")[0])

    def _appeared_in(self, folder: str) -> None:
        with self._lock:
            self._unflushed[folder] = next(self._clock)

    def _make_folders(self, folder: str) -> None:
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        try:
            self._make_unknown(folder)
        except FileNotFoundError:  # one on the way was removed since
            self._known.clear()
            self._make_unknown(folder)

    def _make_unknown(self, folder: str) -> None:
        way = []
        while len(folder) > len(self._root) and folder not in self._known:
            way.append(folder)
            folder = folder.rpartition("/")[0]
        if folder not in self._known:
            check_folder(Path(folder))
        for new in reversed(way):
            try:
                os.mkdir(new)
            except FileExistsError:
                mode = os.lstat(new).st_mode
                if stat.S_ISLNK(mode):
                    raise not_plain(Path(new)) from None
                if not stat.S_ISDIR(mode):
                    raise
            # Also where it was there: another process may have made it, and not flushed it yet.
            self._appeared_in(new.rpartition("/")[0])
            self._known[new] = self._is_beside(new)

    def _is_beside(self, folder: str) -> bool:
        """Whether a folder lies on the disk of the work folder."""
        return os.stat(folder).st_dev == self._device

    @cached_property
    def _device(self) -> int:
        return os.stat(self._real.parent).st_dev

    def flush(self) -> None:
        """Flush every folder in which a name has appeared.

        One thread after the other: what the first has flushed the next need not.
        """
        with self._flushing:
            with self._lock:
                folders = dict(self._unflushed)
            flush_paths(sorted(folders))
            with self._lock:
                for folder, time in folders.items():
                    if self._unflushed.get(folder) == time:
                        del self._unflushed[folder]

    def names(self, prefix: str) -> list[str]:
        """Names directly below a folder, sorted: no disk's order is anybody's answer."""
        folder = self.path(f"{prefix}/x" if prefix else "x").parent
        try:
            found = os.listdir(folder)
        except ABSENT:
            return []
        except OSError as error:
            raise unreadable(folder, error) from error
        return sorted(name for name in found if not is_foreign(name))

    def size(self, key: str) -> int | None:
        """Bytes of a plain file; None where there is none."""
        try:
            found = os.lstat(self.path(key))
        except ABSENT:
            return None
        except OSError as error:
            raise unreadable(self.path(key), error) from error
        if not stat.S_ISREG(found.st_mode):
            raise not_plain(self.path(key))
        return found.st_size

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of the plain files directly below a folder, by name."""
        found = {}
        for name in self.names(prefix):
            path = self.path(f"{prefix}/{name}" if prefix else name)
            with suppress(FileNotFoundError):  # removed since it was listed
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    found[name] = status.st_size
        return found

    def delete(self, key: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        path = self.path(key)
        if path.is_dir() and not path.is_symlink():
            with self._lock:
                gone = [f for f in self._unflushed if f"{f}/".startswith(f"{path}/")]
                for folder in gone:
                    del self._unflushed[folder]
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def delete_all(self, keys: Iterable[str]) -> None:
        """Remove files, one after the other."""
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def begin(self, *, owner: str) -> None:
        """Nothing: several writers are kept apart by locks."""

    def end(self) -> None:
        """Nothing."""

    @contextmanager
    def locked(self, *, timeout: float | None = None) -> Iterator[None]:
        """Hold the file lock beside the store."""
        from taqstore.place.disk import lock
        from taqstore.place.location import Location

        with lock(Location.parse(self.folder), "lock", timeout=timeout):
            yield

    @contextmanager
    def claimed(self, group: str, item: Item, flag: str, size: int) -> Iterator[bool]:
        """Hold an item's file lock beside the store: it goes when its process does."""
        from taqstore.place.disk import try_lock

        location, locks = self._locks
        with try_lock(locks / location.item_lock_name(group, item), location) as held:
            yield held

    @cached_property
    def _locks(self) -> tuple[Location, Path]:
        """The store's address, and the folder of its items' locks."""
        from taqstore.place.location import Location

        location = Location.parse(self.folder)
        return location, location.beside("locks")

    def any_claimed(self, group: str, items: Iterable[Item], flags: str) -> bool:
        """Whether the lock of any of these items is held."""
        from taqstore.place.disk import is_held

        location, locks = self._locks
        there = {lock.name for lock in locks.iterdir()} if locks.is_dir() else set()
        if not there:
            return False
        names = (location.item_lock_name(group, item) for item in items)
        return any(is_held(locks / name) for name in names if name in there)

    def put_flag(self, key: str, content: bytes) -> None:
        """Write the flag; its item's lock keeps others away."""
        self.write(key, [content])


def _write_all(fd: int, piece: Piece | bytearray) -> int:
    view = memoryview(piece)
    done = 0
    while done < view.nbytes:  # os.write may stop short of 2 GiB or at a signal
        done += os.write(fd, view[done:])
    return done


def _write_pieces(fd: int, pieces: Iterable[Piece]) -> int:
    """Write pieces one after the other; returns their bytes."""
    total, small = 0, bytearray()
    for piece in pieces:
        size = memoryview(piece).nbytes
        if small and len(small) + size > _TOGETHER:
            total += _write_all(fd, small)
            small = bytearray()
        if size <= _SMALL:
            small += piece
        else:
            total += _write_all(fd, small) + _write_all(fd, piece)
            small = bytearray()
    return total + _write_all(fd, small)

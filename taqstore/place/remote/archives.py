"""Stores in a zip file, on this disk or behind a URL: read, never written."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Callable, Iterable
from threading import Lock
from typing import IO, TYPE_CHECKING

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from taqstore.errors import StoreError, problem

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

_METADATA = "zarr.json"
# Deflate cannot do better than 1032:1; the slack is for tiny members.
_MOST_RATIO, _SLACK = 1032, 64
_DAMAGED = "copy it again, or make it anew"


class ArchiveStore(Store):
    """A zip file as zarr reads a store; the store is its root, or the one folder in it.

    Parameters
    ----------
    opened
        Gives a path, or a file that can be sought in; called again where the store is unpickled.
    where
        Its address, for messages.

    Raises
    ------
    StoreError
        It is no zip file, is damaged or hostile.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, opened: Callable[[], str | IO[bytes]], where: str) -> None:
        super().__init__(read_only=True)
        self._opened, self._where, self._lock = opened, where, Lock()
        self._zip = _zip_file(opened, where)
        sizes = {info.filename: info.file_size for info in self._zip.infolist()}
        prefix = _prefix(sizes)
        self._names = {name.removeprefix(prefix): name for name in sizes if name[-1:] != "/"}
        self._sizes = {name: sizes[member] for name, member in self._names.items()}

    def __getstate__(self) -> tuple[Callable[[], str | IO[bytes]], str]:
        return self._opened, self._where

    def __setstate__(self, state: tuple[Callable[[], str | IO[bytes]], str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __str__(self) -> str:
        return self._where

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchiveStore) and other._where == self._where

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        super().close()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The bytes of a member, or some of them; None where there is none."""
        from zarr.core.buffer import default_buffer_prototype

        if key not in self._names:
            return None
        start, length = _bounds(byte_range, self._sizes[key])
        with self._lock:  # one file, and one place in it
            found = self._read(self._names[key], start, length)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(found)

    def _read(self, member: str, start: int, length: int) -> bytes:
        try:
            with self._zip.open(member) as file:
                file.seek(start)
                return file.read(length)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            where, found = f"{self._where}: {member}", str(error)
            what = "a member cannot be read"
            raise StoreError(problem(what, where=where, found=found, remedy=_DAMAGED)) from error

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Several of them."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a member."""
        return key in self._names

    async def getsize(self, key: str) -> int:
        """Bytes of a member; FileNotFoundError where there is none."""
        if key not in self._sizes:
            raise FileNotFoundError(key)
        return self._sizes[key]

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """All members."""
        for name in self._names:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Members whose names begin so."""
        for name in self._names:
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        below = (name.removeprefix(folder) for name in self._names if name.startswith(folder))
        for name in dict.fromkeys(rest.partition("/")[0] for rest in below):
            yield name


def _zip_file(opened: Callable[[], str | IO[bytes]], where: str) -> zipfile.ZipFile:
    try:
        found = zipfile.ZipFile(opened())
    except FileNotFoundError as error:
        raise StoreError(problem("no such file", where=where, remedy="check the path")) from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        what = "not a whole zip file"
        raise StoreError(problem(what, where=where, found=str(error), remedy=_DAMAGED)) from error
    for member in found.infolist():
        if member.file_size > member.compress_size * _MOST_RATIO + _SLACK:
            what = f"{member.filename!r} claims {member.file_size} bytes"
            there, remedy = f"{member.compress_size} of them", "the file is damaged or hostile"
            raise StoreError(problem(what, where=where, found=there, remedy=remedy))
    return found


def _prefix(names: Iterable[str]) -> str:
    """What the names of the store begin with: nothing, or the one folder that all lies in."""
    known = set(names)
    tops = {name.partition("/")[0] for name in known}
    top = f"{tops.pop()}/" if len(tops) == 1 else ""
    return top if top and f"{top}{_METADATA}" in known else ""


def _bounds(wanted: ByteRequest | None, size: int) -> tuple[int, int]:
    """Where what is wanted begins, and how long it is."""
    match wanted:
        case RangeByteRequest():
            return wanted.start, max(0, wanted.end - wanted.start)
        case OffsetByteRequest():
            return wanted.offset, max(0, size - wanted.offset)
        case SuffixByteRequest():
            return max(0, size - wanted.suffix), wanted.suffix
    return 0, size

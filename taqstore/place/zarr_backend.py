"""A store in any storage object of zarr: memory, file systems of fsspec, archives.

These know no conditional puts: one process at a time may write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taqstore.errors import StoreError, problem
from taqstore.place.backend import Item, Piece
from taqstore.place.plain_files import ABSENT, check_key, is_foreign, unreadable
from taqstore.place.remote import threads
from taqstore.place.remote.remote_errors import is_of_server, server_errors
from taqstore.place.remote.single_writer import SingleWriter


class ZarrBackend:
    """Any zarr storage object: URLs, memory.

    Parameters
    ----------
    url
        What it is called in messages, where it has an address.
    """

    remote = True

    def __init__(self, store: Any, url: str = "") -> None:
        self.store, self._url = store, url
        self._alone = None if _in_process(store) else _single_writer(store)

    @property
    def name(self) -> str:
        """Its address, or the storage object."""
        return self._url or str(self.store)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self._url)

    def _ask(self, coroutine: Any) -> Any:
        with server_errors(self.name):
            return _sync(coroutine)

    def read(self, key: str) -> bytes | None:
        """The whole object; None where there is none."""
        check_key(key)
        found: bytes | None = self._ask(_get(self.store, key, None))
        return found

    def remembered(self, key: str) -> bytes | None:
        """Nothing: what is asked for is read."""
        return None

    def read_range(self, key: str, start: int, length: int) -> bytes | None:
        """A part of an object; None where there is none."""
        from zarr.abc.store import RangeByteRequest

        check_key(key)
        part = RangeByteRequest(start, start + length)
        found: bytes | None = self._ask(_get(self.store, key, part))
        return found

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The whole objects, asked for side by side."""
        wanted = list(keys)
        for key in wanted:
            check_key(key)
        return dict(zip(wanted, self._ask(_get_all(self.store, wanted)), strict=True))

    def write(self, key: str, pieces: Iterable[Piece]) -> int:
        """One put of all pieces: an object is whole or not there."""
        from zarr.core.buffer import cpu

        content = b"".join(pieces)
        self._ask(self.store.set(key, cpu.Buffer.from_bytes(content)))
        return len(content)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """One put after the other."""
        for key, content in files.items():
            self.write(key, [content])

    def flush(self) -> None:
        """Nothing: a put that returned is durable."""

    def names(self, prefix: str) -> list[str]:
        """Names directly below a prefix."""
        try:
            listed = self._ask(_listed(self.store, prefix))
        except ABSENT:
            return []
        except OSError as error:
            raise unreadable(Path(prefix), error) from error
        found = [name.rstrip("/").rpartition("/")[2] for name in listed]
        return sorted(name for name in found if not is_foreign(name))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of the objects directly below a prefix, by name."""
        found: dict[str, int] = {}
        told = self._ask(_told_sizes(self.store, prefix))
        for name in self.names(prefix) if told is None else sorted(told):
            size = told[name] if told else None
            size = self.size(f"{prefix}/{name}" if prefix else name) if size is None else size
            if size is not None and not is_foreign(name):
                found[name] = size
        return found

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        try:
            found = int(self._ask(self.store.getsize(key)))
        except FileNotFoundError:
            return None
        # File systems give folders a size as well.
        return None if found == 0 and self._ask(_is_folder(self.store, key)) else found

    def delete(self, key: str) -> None:
        """Remove an object, or all below a prefix."""
        self._ask(self.store.delete_dir(key))
        self._ask(self.store.delete(key))

    def delete_all(self, keys: Iterable[str]) -> None:
        """Remove objects, one after the other."""
        for key in keys:
            self._ask(self.store.delete(key))

    def begin(self, *, owner: str) -> None:
        """Be the only process that writes; StoreError where it may not be written."""
        if self.store.read_only:
            what, remedy = "this store can only be read", "write to a folder or a bucket"
            raise StoreError(problem(what, where=owner, remedy=remedy))
        if self._alone is not None:
            self._alone.begin()

    def end(self) -> None:
        """Let others write."""
        if self._alone is not None:
            self._alone.end()

    @contextmanager
    def locked(self, *, timeout: float | None = None) -> Iterator[None]:
        """Hold the store among the threads of this process."""
        with threads.locked(self.name, timeout):
            yield

    @contextmanager
    def claimed(self, group: str, item: Item, flag: str, size: int) -> Iterator[bool]:
        """Hold an item among the threads of this process."""
        with threads.claimed(self.name, group, item) as held:
            yield held

    def any_claimed(self, group: str, items: Iterable[Item], flags: str) -> bool:
        """Whether a thread of this process holds any of these items."""
        return threads.any_claimed(self.name, group, items)

    def put_flag(self, key: str, content: bytes) -> None:
        """Write the flag."""
        self.write(key, [content])


def _in_process(store: Any) -> bool:
    """Whether no other process can reach it."""
    from zarr.storage import MemoryStore

    protocol = getattr(getattr(store, "fs", None), "protocol", ())
    return isinstance(store, MemoryStore) or "memory" in protocol


def _single_writer(store: Any) -> SingleWriter:
    """Its note lies beside the store where that can be reached, else in it."""
    from zarr.storage import FsspecStore

    note, place = ".taqstore.writer", store
    if isinstance(store, FsspecStore) and "/" in store.path.strip("/"):
        above, _, last = store.path.rstrip("/").rpartition("/")
        place, note = FsspecStore(store.fs, path=above), f".{last}.writer"
    backend = object.__new__(ZarrBackend)
    backend.store, backend._url = place, ""
    return SingleWriter(
        lambda: backend.read(note), lambda text: backend.write(note, [text]), str(store)
    )


async def _is_folder(store: Any, key: str) -> bool:
    system = getattr(store, "fs", None)
    return system is not None and bool(await system._isdir(f"{store.path}/{key}"))


async def _listed(store: Any, prefix: str) -> list[str]:
    return [name async for name in store.list_dir(prefix)]


async def _told_sizes(store: Any, prefix: str) -> dict[str, int | None] | None:
    """Bytes of files by name, as a listing tells them; None where no listing does."""
    from zarr.storage import FsspecStore

    if not isinstance(store, FsspecStore):
        return None
    try:
        found = await store.fs._ls(f"{store.path}/{prefix}".rstrip("/"), detail=True)
    except OSError:
        return None  # names say what is wrong
    files = (entry for entry in found if entry["type"] == "file")
    return {entry["name"].rstrip("/").rpartition("/")[2]: entry.get("size") for entry in files}


async def _get(store: Any, key: str, part: Any) -> bytes | None:
    from zarr.core.buffer import default_buffer_prototype

    try:
        found = await store.get(key, default_buffer_prototype(), part)
    except OSError as error:
        if is_of_server(error):
            raise
        raise unreadable(Path(key), error) from error
    return None if found is None else bytes(found.to_bytes())


async def _get_all(store: Any, keys: Sequence[str]) -> list[bytes | None]:
    import asyncio

    return await asyncio.gather(*(_get(store, key, None) for key in keys))


def _sync(coroutine: Any) -> Any:
    from zarr.core.sync import sync

    return sync(coroutine)

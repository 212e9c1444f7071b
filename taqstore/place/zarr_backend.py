"""A store in any storage object of zarr: behind a URL, or in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taqstore.place.at_once import at_once
from taqstore.place.backend import Piece
from taqstore.place.plain_files import ABSENT, check_key, is_foreign, unreadable


class ZarrBackend:
    """Any zarr storage object: URLs, memory."""

    remote = True

    def __init__(self, store: Any) -> None:
        self.store = store

    @property
    def name(self) -> str:
        """The storage object."""
        return str(self.store)

    def read(self, key: str) -> bytes | None:
        """The whole object; None where there is none."""
        from zarr.core.buffer import default_buffer_prototype

        check_key(key)
        try:
            found = _sync(self.store.get(key, default_buffer_prototype()))
        except OSError as error:
            raise unreadable(Path(key), error) from error
        return None if found is None else found.to_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes | None:
        """Part of an object, cut at its end; None where there is none."""
        from zarr.abc.store import RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype

        check_key(key)
        wanted = RangeByteRequest(start, start + length)
        try:
            found = _sync(self.store.get(key, default_buffer_prototype(), wanted))
        except OSError as error:
            raise unreadable(Path(key), error) from error
        return None if found is None else found.to_bytes()

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Whole objects, several at a time, in order."""
        return at_once(self.read, keys)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of what lies directly below a prefix."""
        names = self.names(prefix)
        found = at_once(lambda name: self.size(f"{prefix}/{name}"), names)
        return {name: size for name, size in zip(names, found, strict=True) if size is not None}

    def write(self, key: str, pieces: Iterable[Piece]) -> int:
        """One put of all pieces: an object is whole or not there."""
        from zarr.core.buffer import cpu

        content = b"".join(pieces)
        _sync(self.store.set(key, cpu.Buffer.from_bytes(content)))
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
            listed = _sync(_listed(self.store, prefix))
        except ABSENT:
            return []
        except OSError as error:
            raise unreadable(Path(prefix), error) from error
        found = [name.rstrip("/").rpartition("/")[2] for name in listed]
        return sorted(name for name in found if not is_foreign(name))

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        try:
            return int(_sync(self.store.getsize(key)))
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, or all below a prefix."""
        _sync(self.store.delete_dir(key))
        _sync(self.store.delete(key))


async def _listed(store: Any, prefix: str) -> list[str]:
    return [name async for name in store.list_dir(prefix)]


def _sync(coroutine: Any) -> Any:
    from zarr.core.sync import sync

    return sync(coroutine)

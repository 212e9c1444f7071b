"""What a store asks of the place where its bytes lie.

Keys are those of Zarr: names joined by `/`, below the root of the store. What a write leaves is
whole or not there; after `flush` it is there even if the power fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

Piece = bytes | memoryview
Item = tuple[int, ...]


class Backend(Protocol):
    """A local folder, an object store, or whatever else zarr can reach."""

    remote: bool
    """Whether each request takes its time: better few large ones, several at once."""

    @property
    def name(self) -> str:
        """The place, for messages."""

    def read(self, key: str) -> bytes | None:
        """The whole content; None where there is no such key."""

    def remembered(self, key: str) -> bytes | None:
        """A document as it was last read or written here; None where reading costs nothing.

        It may be another by now: the caller compares it with what the group's document records.
        """

    def read_range(self, key: str, start: int, length: int) -> bytes | None:
        """So many bytes from a place inside on, fewer where it ends; None where there is no key."""

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The whole contents of several keys, read side by side where that is faster."""

    def names(self, prefix: str) -> list[str]:
        """Names directly below a prefix, leftovers of killed writers left out."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of what lies directly below a prefix, by name; what lies deeper is left out."""

    def size(self, key: str) -> int | None:
        """Bytes under a key; None where there is no such key."""

    def write(self, key: str, pieces: Iterable[Piece]) -> int:
        """Put pieces one after another under a key, whole or not at all; returns their bytes.

        For what one writer owns: the data of an item that it has claimed.
        """

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Put several small files, each whole or not at all.

        For what writers share: the caller holds the lock. Where another has taken it over in the
        meantime, nothing of his is overwritten.
        """

    def flush(self) -> None:
        """Make the names of all that was written durable."""

    def delete(self, key: str) -> None:
        """Remove a key that may not be there, or all below a prefix."""

    def delete_all(self, keys: Iterable[str]) -> None:
        """Remove several keys that may not be there; nothing below them."""

    def begin(self, *, owner: str) -> None:
        """A writer opens the store; StoreError where another one may not be at work as well."""

    def end(self) -> None:
        """The writer is done."""

    def locked(self, *, timeout: float | None = None) -> AbstractContextManager[None]:
        """Hold the lock of what writers share; StoreError where another holds it for long."""

    def claimed(self, group: str, item: Item, flag: str, size: int) -> AbstractContextManager[bool]:
        """Hold an item of a group; False where another process does.

        `flag` is the key of its flag, which will have that many bytes.
        """

    def any_claimed(self, group: str, items: Iterable[Item], flags: str) -> bool:
        """Whether any process holds one of these items; `flags` is the prefix of their flags."""

    def put_flag(self, key: str, content: bytes) -> None:
        """Flag an item; StoreError where another writer has taken it over."""

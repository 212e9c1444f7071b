"""A bucket as zarr reads and writes it: what the server refuses is told in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zarr.storage import ObjectStore

from taqstore.place.remote.object_stores import client_of
from taqstore.place.remote.remote_errors import remote_errors

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


_NONE: Mapping[str, Any] = {}


class BucketStore(ObjectStore[Any]):
    """`ObjectStore` with an address, by which other processes make a client of their own.

    Parameters
    ----------
    store
        The client.
    url, options
        What it is the client of.
    """

    def __init__(
        self,
        store: Any,
        *,
        read_only: bool = False,
        url: str = "",
        options: Mapping[str, Any] = _NONE,
    ) -> None:
        super().__init__(store, read_only=read_only)
        self._url, self._options = url, options

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._url, dict(self._options), self.read_only)

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        """The same, to be written or not."""
        return BucketStore(self.store, read_only=read_only, url=self._url, options=self._options)

    def __str__(self) -> str:
        return self._url

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key."""
        with remote_errors(self._url, key):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Parts of several keys."""
        with remote_errors(self._url, ""):
            return await super().get_partial_values(prototype, key_ranges)

    async def set(self, key: str, value: Buffer) -> None:
        """Put the bytes of a key."""
        with remote_errors(self._url, key):
            await super().set(key, value)


def _again(url: str, options: Mapping[str, Any], read_only: bool) -> BucketStore:
    return BucketStore(client_of(url, options), read_only=read_only, url=url, options=options)

"""Files of an array that zarr decodes: compared with what was written before they are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from taqstore.errors import StoreError, problem
from taqstore.layout.frames import check_frames
from taqstore.layout.item_records import ABSENT, Identity
from taqstore.layout.shards import REMEDY, fingerprint_of
from taqstore.place.plain_files import open_regular
from taqstore.place.zarr_backend import ZarrBackend

if TYPE_CHECKING:
    import zarr

# Off the local disk: files that are compared whole, of a dask block at most.
_FETCHED_WHOLE = 32 << 20
Identify: TypeAlias = Callable[[tuple[int, ...]], Identity | None]


def lost(where: str, what: str) -> StoreError:
    """The error of a file that is not the one that its item owns."""
    return StoreError(problem(what, where=where, remedy=REMEDY))


class CheckedFiles:
    """The files of one array, each compared before it is read.

    Parameters
    ----------
    array, folder, identity, sparse
        As of `StoreArray`.
    every_time
        Off the local disk, compare files that are small whenever they are read; else once.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        folder: Path | None,
        identity: Identify | None,
        *,
        sparse: bool,
        every_time: bool,
    ) -> None:
        self.array, self.folder, self.identity = array, folder, identity
        self.sparse, self.every_time = sparse, every_time
        self._compressed = _is_compressed(array)
        self._seen: set[tuple[int, ...]] = set()

    def array_of(self, coords: tuple[int, ...]) -> zarr.Array[Any]:
        """The array to read a shard from, once its file is the one that was written.

        On a local disk each file is looked at once. Elsewhere a file that is no larger than a block
        is fetched whole, compared, and read from memory; of a larger one the size is compared.
        """
        key = f"{self.array.path}/c/{'/'.join(map(str, coords))}"
        if self.folder is None:
            return self._fetched(coords, key)
        if coords not in self._seen:
            path = self.folder.joinpath("c", *map(str, coords))
            try:
                with open(open_regular(path), "rb") as file:
                    self._check_content(file.read(), coords, str(path))
            except (FileNotFoundError, NotADirectoryError) as error:
                if not self.sparse:
                    raise lost(str(path), "missing, though its item is flagged") from error
            self._seen.add(coords)
        return self.array

    def _fetched(self, coords: tuple[int, ...], key: str) -> zarr.Array[Any]:
        backend = ZarrBackend(self.array.store)
        if self.identity is None:
            if not self.sparse and coords not in self._seen and backend.size(key) is None:
                raise lost(key, "missing, though its item is flagged")
            self._seen.add(coords)
            return self.array
        if coords in self._seen:
            return self.array
        size, _ = self.identity(coords) or ABSENT
        if size <= _FETCHED_WHOLE:
            content = backend.read(key)
            if content is not None:
                self._check_content(content, coords, key)
                if not self.every_time:
                    self._seen.add(coords)
                return _alone(self.array, key, content)
        elif (found := backend.size(key)) is not None:
            if found != size:
                raise lost(key, "not the file that was written here")
            self._seen.add(coords)
            return self.array
        raise lost(key, "missing, though its item is flagged")

    def _check_content(self, content: bytes, coords: tuple[int, ...], where: str) -> None:
        """Refuse a file that is another than was written, or that claims to become larger."""
        capacity = None
        if self.array.shards is not None:
            pairs = zip(self.array.shards, self.array.chunks, strict=True)
            capacity = math.prod(s // c for s, c in pairs)
        try:
            found = len(content), fingerprint_of(content, capacity)
            if self._compressed:
                chunk = math.prod(self.array.chunks) * self.array.dtype.itemsize
                check_frames(content, capacity, chunk)
        except ValueError as error:
            raise lost(where, str(error)) from error
        if self.identity is not None and self.identity(coords) not in (None, found):
            raise lost(where, "not the file that was written here")


def _alone(array: zarr.Array[Any], key: str, content: bytes) -> zarr.Array[Any]:
    """The array over one file that is in memory; the others read as if they were not there."""
    from zarr import Array
    from zarr.core.array import AsyncArray
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore, StorePath

    store = MemoryStore({key: cpu.Buffer.from_bytes(content)}, read_only=True)
    return Array(AsyncArray(array.metadata, StorePath(store, array.path)))


def _is_compressed(array: zarr.Array[Any]) -> bool:
    metadata: Any = array.metadata
    codecs: list[Any] = [codec.to_dict() for codec in metadata.codecs]
    if codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    return "zstd" in {codec["name"] for codec in codecs}

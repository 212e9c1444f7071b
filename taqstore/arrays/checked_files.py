"""Local files of an array that zarr decodes: compared with what was written before that."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from taqstore.arrays.inner_chunks import capacity_of, is_compressed
from taqstore.errors import StoreError, problem
from taqstore.layout.frames import check_frames
from taqstore.layout.item_records import Identity
from taqstore.layout.nodes import ArrayNode
from taqstore.layout.shards import REMEDY, fingerprint_of
from taqstore.place.plain_files import open_regular

if TYPE_CHECKING:
    import zarr

Identify: TypeAlias = Callable[[tuple[int, ...]], Identity | None]


def lost(where: str, what: str) -> StoreError:
    """The error of a file that is not the one that its item owns."""
    return StoreError(problem(what, where=where, remedy=REMEDY))


def damaged(where: str, error: Exception) -> StoreError:
    """The error of a chunk that cannot be decoded."""
    return StoreError(problem("damaged chunk", where=where, found=str(error), remedy=REMEDY))


class CheckedFiles:
    """The files of one array, each compared before it is read.

    Parameters
    ----------
    array, folder, identity, sparse
        As of `StoreArray`.
    """

    def __init__(
        self,
        array: zarr.Array[Any] | ArrayNode,
        folder: Path,
        identity: Identify | None,
        *,
        sparse: bool,
    ) -> None:
        self.array, self.folder, self.identity = array, folder, identity
        self.sparse = sparse
        self._seen: set[tuple[int, ...]] = set()

    def array_of(self, coords: tuple[int, ...]) -> zarr.Array[Any] | ArrayNode:
        """The array to read a shard from, once its file is the one that was written.

        Each file is looked at once.
        """
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

    def _check_content(self, content: bytes, coords: tuple[int, ...], where: str) -> None:
        """Refuse a file that is another than was written, or that claims to become larger."""
        check_whole(
            self.array, content, None if self.identity is None else self.identity(coords), where
        )


def check_whole(
    array: zarr.Array[Any] | ArrayNode, raw: Any, identity: Identity | None, where: str
) -> None:
    """Refuse a file that is another than was written, or that claims to become larger.

    Parameters
    ----------
    raw
        Its bytes.
    identity
        What its item owns; None where nothing tells.

    Raises
    ------
    StoreError
        It is refused, as `where`.
    """
    capacity = capacity_of(array)
    try:
        found = len(raw), fingerprint_of(raw, capacity)
        if is_compressed(array):
            chunk = math.prod(array.chunks) * array.dtype.itemsize
            check_frames(raw, capacity, chunk)
    except ValueError as error:
        raise lost(where, str(error)) from error
    if identity not in (None, found):
        raise lost(where, "not the file that was written here")

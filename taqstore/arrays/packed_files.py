"""Local files of compressed inner chunks, decoded to where they belong.

zarr takes several times as long for chunks of a few kilobytes.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.checked_files import Identify, check_whole, damaged, lost
from taqstore.arrays.inner_chunks import InnerChunks
from taqstore.arrays.selection import positions_of, take
from taqstore.layout.nodes import ArrayNode
from taqstore.place.plain_files import open_regular

if TYPE_CHECKING:
    import zarr


class PackedFiles:
    """The files of one array whose inner chunks split one axis and are compressed.

    Parameters
    ----------
    array, folder, identity, sparse
        As of `StoreArray`.
    inner
        How the chunks lie.
    """

    def __init__(
        self,
        array: zarr.Array[Any] | ArrayNode,
        folder: Path,
        identity: Identify | None,
        inner: InnerChunks,
        *,
        sparse: bool,
    ) -> None:
        self.array, self.folder, self.identity = array, folder, identity
        self.inner, self.sparse = inner, sparse
        self._seen: set[tuple[int, ...]] = set()

    @classmethod
    def of(
        cls,
        array: zarr.Array[Any] | ArrayNode,
        folder: Path,
        identity: Identify | None,
        *,
        sparse: bool,
    ) -> PackedFiles | None:
        """Those of an array; None where its files are laid out otherwise."""
        inner = InnerChunks.of(array)
        if inner is None or not inner.compressed or inner.framing.axis is None:
            return None
        return cls(array, folder, identity, inner, sparse=sparse)

    @property
    def axis(self) -> int:
        """The axis that inner chunks split."""
        assert self.inner.framing.axis is not None
        return self.inner.framing.axis

    def read_into(self, coords: tuple[int, ...], local: list[Any], out: np.ndarray) -> None:
        """Read a selection of the shard at `coords` into an array of its shape.

        Raises
        ------
        StoreError
            The file is missing, is another than was written, or a chunk of it is damaged.
        """
        path = self.folder.joinpath("c", *map(str, coords))
        try:
            with open(open_regular(path), "rb") as file:
                raw = self._checked(file.fileno(), coords, str(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self.sparse:
                raise lost(str(path), "missing, though its item is flagged") from error
            out[...] = self.array.fill_value
            return
        try:
            self._decode(memoryview(raw), local, out)
        except (ValueError, RuntimeError) as error:
            where = f"{self.array.path}/c/{'/'.join(map(str, coords))}"
            raise damaged(where, error) from error

    def _checked(self, descriptor: int, coords: tuple[int, ...], where: str) -> mmap.mmap:
        """A map of the file; it is compared with what was written the first time."""
        try:
            raw = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # there is nothing to map
            raise lost(where, "0 bytes") from error
        if coords not in self._seen:
            identity = None if self.identity is None else self.identity(coords)
            check_whole(self.array, raw, identity, where)
            self._seen.add(coords)
        return raw

    def _decode(self, view: memoryview, local: list[Any], out: np.ndarray) -> None:
        inner, axis = self.inner, self.axis
        table = inner.table(bytes(view[-inner.index_bytes :])).tolist()
        chunk = [1 if at == axis else size for at, size in enumerate(inner.framing.shard_shape)]
        scratch = np.empty(chunk, inner.framing.dtype)
        within = [slice(0, 1) if at == axis else key for at, key in enumerate(local)]
        before = (slice(None),) * axis
        for number, position in enumerate(positions_of(local[axis], len(table)).tolist()):
            target = out[(*before, slice(number, number + 1))]
            start, length = table[position]
            if start < 0:
                target[...] = self.array.fill_value
            elif target.shape == scratch.shape and target.flags.c_contiguous:
                inner.decode_into(view[start : start + length], target)
            else:
                inner.decode_into(view[start : start + length], scratch)
                target[...] = take(scratch, within)

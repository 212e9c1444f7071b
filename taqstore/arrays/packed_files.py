"""Local files of compressed inner chunks, decoded to where they belong.

zarr takes several times as long for chunks of a few kilobytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.checked_files import Identify, check_whole, damaged, lost
from taqstore.arrays.inner_chunks import InnerChunks
from taqstore.arrays.selection import positions_of, take
from taqstore.layout.nodes import ArrayNode
from taqstore.place.plain_files import open_regular
from taqstore.place.whole_files import whole_file

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
        file = self.file(coords)
        if file is None:
            out[...] = self.array.fill_value
        else:
            self._decode(file, local, out)

    def file(self, coords: tuple[int, ...]) -> PackedFile | None:
        """The file of the shard at `coords`; None where it may be missing, and is.

        Raises
        ------
        StoreError
            As of `read_into`.
        """
        path = self.folder.joinpath("c", *map(str, coords))
        where = f"{self.array.path}/c/{'/'.join(map(str, coords))}"
        try:
            with open(open_regular(path), "rb") as file:
                raw = self._checked(file.fileno(), coords, str(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self.sparse:
                raise lost(str(path), "missing, though its item is flagged") from error
            return None
        return PackedFile(self.inner, memoryview(raw), where)

    def scratch(self) -> np.ndarray:
        """Room for one inner chunk."""
        chunk = list(self.inner.framing.shard_shape)
        chunk[self.axis] = 1
        return np.empty(chunk, self.inner.framing.dtype)

    def extent(self, axis: int) -> int:
        """Length of a shard along an axis."""
        return self.inner.framing.shard_shape[axis]

    def within(self, local: list[Any]) -> list[Any]:
        """A selection of a shard as one of each of its chunks."""
        return [slice(0, 1) if at == self.axis else key for at, key in enumerate(local)]

    def _checked(self, descriptor: int, coords: tuple[int, ...], where: str) -> Any:
        """The file's bytes; they are compared with what was written the first time."""
        try:
            raw = whole_file(descriptor)
        except ValueError as error:
            raise lost(where, "0 bytes") from error
        if coords not in self._seen:
            identity = None if self.identity is None else self.identity(coords)
            check_whole(self.array, raw, identity, where)
            self._seen.add(coords)
        return raw

    def _decode(self, file: PackedFile, local: list[Any], out: np.ndarray) -> None:
        scratch, within = self.scratch(), self.within(local)
        in_order = all(isinstance(key, slice) and key.step in (None, 1) for key in within)
        before = (slice(None),) * self.axis
        wanted = positions_of(local[self.axis], self.extent(self.axis))
        for number, position in enumerate(wanted.tolist()):
            target = out[(*before, slice(number, number + 1))]
            whole = in_order and target.shape == scratch.shape and target.flags.c_contiguous
            found = target if whole else scratch
            if not file.decode_into(position, found):
                target[...] = self.array.fill_value
            elif not whole:
                target[...] = take(scratch, within)


class PackedFile:
    """One file, compared with what was written.

    Parameters
    ----------
    inner
        How its chunks lie.
    view
        Its bytes.
    where
        Its name in messages.

    Raises
    ------
    StoreError
        Its index is damaged.
    """

    def __init__(self, inner: InnerChunks, view: memoryview, where: str) -> None:
        self._inner, self._view, self._where = inner, view, where
        try:
            self._table = inner.table(bytes(view[-inner.index_bytes :])).tolist()
        except ValueError as error:
            raise damaged(where, error) from error

    def decode_into(self, position: int, out: np.ndarray) -> bool:
        """One inner chunk into an array of its size, in C order; False: it is not there.

        Raises
        ------
        StoreError
            It is damaged.
        """
        start, length = self._table[position]
        if start < 0:
            return False
        try:
            self._inner.decode_into(self._view[start : start + length], out)
        except (ValueError, RuntimeError) as error:
            raise damaged(self._where, error) from error
        return True

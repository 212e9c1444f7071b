"""Files of an array that do not lie on a local disk: few requests, and none of it taken on trust.

A file that is no larger than a block is fetched whole and compared with what its item owns. Of a
larger one the index and the inner chunks that are asked for are fetched: its size and every chunk's
checksum are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from taqstore.arrays.checked_files import Identify, check_whole, damaged, lost
from taqstore.arrays.inner_chunks import InnerChunks, capacity_of
from taqstore.arrays.pieces import Piece, Pieces, Raw
from taqstore.arrays.selection import shifted, take
from taqstore.errors import StoreError
from taqstore.layout.item_records import Identity
from taqstore.layout.nodes import ArrayNode
from taqstore.layout.shards import CODEC_ERRORS

if TYPE_CHECKING:
    import zarr

Coords: TypeAlias = tuple[int, ...]
Local: TypeAlias = list[Any]
Asked: TypeAlias = tuple[Coords, Local]
FETCHED_WHOLE = 32 << 20
"""Files that are fetched whole, of a dask block at most."""
# Chunks that lie no further apart are one request: what is read for nothing takes less time than a
# request. A request of more bytes than a block holds up all others.
NEAR, _LONGEST = 256 << 10, 32 << 20
# Fetched before the first of it is decoded.
_AT_ONCE = 64 << 20


class FarFiles:
    """The files of one array.

    Parameters
    ----------
    array, identity, sparse
        As of `StoreArray`.
    pieces
        Where their bytes come from.
    """

    def __init__(
        self,
        array: zarr.Array[Any] | ArrayNode,
        identity: Identify | None,
        *,
        sparse: bool,
        pieces: Pieces,
    ) -> None:
        self.array, self.identity, self.sparse, self.pieces = array, identity, sparse, pieces
        self.chunks = InnerChunks.of(array)
        self._shard = tuple(array.shards or array.chunks)
        self._nominal = math.prod(self._shard) * array.dtype.itemsize

    def parts(self, asked: Sequence[Asked]) -> Iterator[np.ndarray | None]:
        """Selections inside shards, every axis kept; None for a file that is not there.

        Raises
        ------
        StoreError
            A file is missing, or not what was written.
        """
        window: list[Asked] = []
        room = _AT_ONCE
        for one in asked:
            size = self._cost(one)
            if window and size > room:
                yield from self._window(window)
                window, room = [], _AT_ONCE
            window.append(one)
            room -= size
        yield from self._window(window)

    def _cost(self, one: Asked) -> int:
        coords, local = one
        if not self._is_cut(coords):
            return self._size(coords)
        return max(1, len(self._numbers(local))) * self._chunk_bytes

    def _size(self, coords: Coords) -> int:
        identity = self._identity(coords)
        return self._nominal if identity is None else identity[0]

    def _identity(self, coords: Coords) -> Identity | None:
        return None if self.identity is None else self.identity(coords)

    def _is_cut(self, coords: Coords) -> bool:
        """Whether parts of the file are fetched, not all of it."""
        inner = self.chunks is not None and self.chunks.framing.axis is not None
        return inner and self._identity(coords) is not None and self._size(coords) > FETCHED_WHOLE

    @property
    def _chunk_bytes(self) -> int:
        return self._nominal // max(1, capacity_of(self.array) or 1)

    def _key(self, coords: Coords) -> str:
        return f"{self.array.path}/c/{'/'.join(map(str, coords))}"

    def _numbers(self, local: Local) -> np.ndarray:
        """Inner chunks that a selection lies in, ascending."""
        assert self.chunks is not None
        axis = self.chunks.framing.axis
        if axis is None:
            return np.zeros(1, np.int64)
        return np.unique(np.arange(self._shard[axis])[local[axis]])

    def _window(self, asked: Sequence[Asked]) -> Iterator[np.ndarray | None]:
        cut = [one for one in asked if self._is_cut(one[0])]
        tables = dict(zip((one[0] for one in cut), self._tables(cut), strict=True))
        plans = [self._plan(one, tables.get(one[0])) for one in asked]
        flat = [piece for plan in plans for piece in plan]
        raws = iter(self.pieces.fetch(flat))
        for (coords, local), plan in zip(asked, plans, strict=True):
            got = [next(raws) for _ in plan]
            try:
                yield self._part(coords, local, plan, got, tables.get(coords))
            except StoreError:
                self.pieces.forget(plan)
                raise

    def _tables(self, cut: Sequence[Asked]) -> Iterator[np.ndarray]:
        """Where the chunks of large files lie, as their indexes tell."""
        assert self.chunks is not None or not cut
        asked = [self._index(coords) for coords, _ in cut]
        for piece, raw in zip(asked, self.pieces.fetch(asked), strict=True):
            assert self.chunks is not None
            assert piece.identity is not None
            if raw is None:
                raise lost(piece.key, "missing, though its item is flagged")
            try:
                # One byte more was asked for: a file that is too long has it.
                table = self.chunks.table(bytes(raw))
            except ValueError as error:
                self.pieces.forget([piece])
                raise lost(piece.key, f"not the file that was written here: {error}") from error
            if int(table.sum(axis=1).max(initial=0)) > piece.start:
                raise lost(piece.key, "an index that leads outside the file")
            yield table

    def _index(self, coords: Coords) -> Piece:
        assert self.chunks is not None
        identity, length = self._identity(coords), self.chunks.index_bytes
        assert identity is not None
        return Piece(self._key(coords), identity, max(0, identity[0] - length), length + 1)

    def _plan(self, one: Asked, table: np.ndarray | None) -> list[Piece]:
        """What to fetch for a selection: the file, or runs of its chunks."""
        coords, local = one
        key, identity = self._key(coords), self._identity(coords)
        if table is None:
            return [Piece(key, identity)]
        return [Piece(key, identity, start, length) for start, length in self._runs(local, table)]

    def _runs(self, local: Local, table: np.ndarray) -> list[tuple[int, int]]:
        """Offset and length of what is fetched together, in order."""
        places = table[self._numbers(local)]
        runs: list[tuple[int, int]] = []
        for offset, length in sorted(places[places[:, 0] >= 0].tolist()):
            end = offset + length
            if runs:
                start, known = runs[-1]
                near = offset - (start + known) <= NEAR and end - start <= _LONGEST
                if near:
                    runs[-1] = start, max(known, end - start)
                    continue
            runs.append((offset, length))
        return runs

    def _part(
        self,
        coords: Coords,
        local: Local,
        plan: Sequence[Piece],
        got: Sequence[Raw | None],
        table: np.ndarray | None,
    ) -> np.ndarray | None:
        key = self._key(coords)
        if any(raw is None for raw in got):
            if self.sparse and self.identity is None:
                return None
            raise lost(key, "missing, though its item is flagged")
        raws = [memoryview(raw) for raw in got if raw is not None]
        if table is None:
            check_whole(self.array, raws[0], self._identity(coords), key)
        if self.chunks is None:
            return self._by_zarr(key, bytes(raws[0]), coords, local)
        try:
            if table is None:
                table = self._table_of(raws[0])
            return self._decoded(local, table, plan, raws)
        except ValueError as error:
            raise damaged(key, error) from error

    def _table_of(self, raw: memoryview) -> np.ndarray:
        assert self.chunks is not None
        if self.chunks.framing.axis is None:
            return np.array([[0, len(raw)]], np.int64)
        table = self.chunks.table(bytes(raw[len(raw) - self.chunks.index_bytes :]))
        if int(table.sum(axis=1).max(initial=0)) > len(raw):
            raise ValueError("an index that leads outside the file")
        return table

    def _decoded(
        self, local: Local, table: np.ndarray, plan: Sequence[Piece], raws: Sequence[memoryview]
    ) -> np.ndarray:
        """A selection from the chunks that it lies in; chunks that are not there read as fill."""
        assert self.chunks is not None
        framing = self.chunks.framing
        if framing.axis is None:
            return _own(take(self.chunks.decoded(raws[0]), local), raws[0])
        numbers = self._numbers(local)
        rest = [slice(0, 1) if i == framing.axis else k for i, k in enumerate(local)]
        starts = np.array([piece.start for piece in plan])
        found = []
        for offset, length in table[numbers].tolist():
            if offset < 0:
                shape = [1 if i == framing.axis else n for i, n in enumerate(self._shard)]
                found.append(take(np.full(shape, self.array.fill_value, framing.dtype), rest))
                continue
            run = int(np.searchsorted(starts, offset, "right")) - 1
            begin = offset - int(starts[run])
            raw = raws[run][begin : begin + length]
            found.append(take(self.chunks.decoded(raw), rest))
        if len(found) == 1:
            found = [_own(found[0], raws[0])]
        whole = found[0] if len(found) == 1 else np.concatenate(found, axis=framing.axis)
        order = np.searchsorted(numbers, np.arange(self._shard[framing.axis])[local[framing.axis]])
        if np.array_equal(order, np.arange(len(numbers))):
            return whole
        return np.take(whole, order, axis=framing.axis)

    def _by_zarr(self, key: str, content: bytes, coords: Coords, local: Local) -> np.ndarray:
        """A selection of a file that is in memory, of an array that only zarr decodes."""
        first = [c * s for c, s in zip(coords, self._shard, strict=True)]
        absolute = tuple(shifted(k, f) for k, f in zip(local, first, strict=True))
        try:
            return np.asarray(_alone(self.array, key, content).oindex[absolute])
        except CODEC_ERRORS as error:
            raise damaged(key, error) from error


def _own(part: np.ndarray, raw: memoryview) -> np.ndarray:
    """A part of a file; in memory of its own where it would hold much of the file for little."""
    return part.copy() if 2 * part.nbytes < len(raw) else part


def _alone(array: zarr.Array[Any] | ArrayNode, key: str, content: bytes) -> zarr.Array[Any]:
    """The array over one file that is in memory; the others read as if they were not there."""
    from zarr import Array
    from zarr.core.array import AsyncArray
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore, StorePath

    store = MemoryStore({key: cpu.Buffer.from_bytes(content)}, read_only=True)
    return Array(AsyncArray(array.metadata, StorePath(store, array.path)))

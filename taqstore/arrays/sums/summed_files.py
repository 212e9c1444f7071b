"""Counts of all items added up, kept beside them: read in their place, made when a writer is done.

A sum is taken only if it was made of exactly the files that are asked for, as their records tell
them; else, or where it is damaged, these are read. So it can be missing, and cannot be behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from taqstore.arrays.inner_chunks import compared
from taqstore.arrays.packed_files import PackedFiles
from taqstore.arrays.selection import positions_of, take
from taqstore.arrays.store_array import ArrayReader
from taqstore.arrays.sums.sum_bytes import (
    PART_BYTES,
    cut,
    decoded,
    item_of,
    part_of,
    size_of,
    sum_bytes,
)
from taqstore.errors import StoreError
from taqstore.layout.item_records import ABSENT
from taqstore.names import ITEMS
from taqstore.place.plain_files import open_regular
from taqstore.place.whole_files import whole_file

_DAMAGE = (ValueError, RuntimeError, StoreError, OSError)
# A sum is of the first axis, along which an item has one place.
_AXIS = 0
_FEWEST = 2
_SUMS = f"{ITEMS}/sums"
Coords = tuple[int, ...]


class SummedFile:
    """One file of sums, compared with what it says of itself.

    Parameters
    ----------
    packed
        The files it was made of.
    path
        Where it lies.

    Raises
    ------
    ValueError, StoreError, OSError
        It is missing, or damaged.
    """

    def __init__(self, packed: PackedFiles, path: Path) -> None:
        inner = packed.inner
        with open(open_regular(path), "rb") as file:
            raw = memoryview(whole_file(file.fileno()))
        self._view, self.parts = cut(raw, packed.extent(packed.axis))
        self._table = inner.table(bytes(self._view[-inner.index_bytes :])).tolist()
        self._shape = list(inner.framing.shard_shape)
        self._shape[packed.axis] = 1

    def chunk(self, position: int) -> np.ndarray:
        """Sums of one chunk, u4 or i8.

        Raises
        ------
        ValueError, RuntimeError
            It is damaged.
        """
        start, length = self._table[position]
        return decoded(compared(self._view[max(0, start) : start + length]), self._shape)


def read_sum(reader: ArrayReader, places: Sequence[Coords], local: list[Any]) -> np.ndarray | None:
    """Sums over these files; None: there are none of just these, or damaged.

    Parameters
    ----------
    places
        Of the files, each wanted once.
    local
        What is wanted of each of them.

    Returns
    -------
    u4, or i8 where these do not hold a sum, with one place along the axis that is summed; in memory
    the axis that chunks split is the outermost.
    """
    parts = _parts(reader, places)
    if parts is None:
        return None
    packed = reader.packed
    assert packed is not None
    try:
        file = SummedFile(packed, _path(reader, places[0]))
        if file.parts != b"".join(parts) or not _are_there(reader, places, parts):
            return None
        within = packed.within(local)
        wanted = positions_of(local[packed.axis], packed.extent(packed.axis))
        return _together(file, wanted.tolist(), within, packed.axis)
    except _DAMAGE:
        return None


def _together(file: SummedFile, wanted: list[int], within: list[Any], axis: int) -> np.ndarray:
    """What is wanted of some chunks as one array, as narrow as they are."""
    before, out = (slice(None),) * axis, None
    for number, position in enumerate(wanted):
        chunk = take(file.chunk(position), within)
        if out is None or chunk.itemsize > out.itemsize:
            out = _wider(out, chunk, len(wanted), axis)
        out[(*before, slice(number, number + 1))] = chunk
    if out is None:
        raise ValueError("nothing is wanted")
    return out


def _wider(out: np.ndarray | None, chunk: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Room for chunks like one, with what `out` holds."""
    sizes = [*chunk.shape]
    del sizes[axis]
    wide = np.moveaxis(np.empty((length, *sizes), chunk.dtype), 0, axis)
    if out is not None:
        wide[...] = out
    return wide


def missing_sums(reader: ArrayReader) -> Iterator[tuple[str, bytes]]:
    """Files of sums that are missing or behind, by key below the group.

    What an older sum holds is not read again.
    """
    packed = reader.packed
    if not may_sum(reader) or packed is None:
        return
    grid = [range(-(-n // s)) for n, s in zip(reader.shape, reader.shard_shape, strict=True)]
    for rest in product(*grid[1:]):
        places = [(item, *rest) for item in grid[_AXIS] if reader.is_there((item, *rest))]
        parts = _parts(reader, places)
        if parts is None:
            continue
        content = _made(reader, packed, places, parts)
        if content is not None:
            yield _key(reader, places[0]), content


def may_sum(reader: ArrayReader) -> bool:
    """Whether sums of an array may be kept."""
    packed = reader.packed
    whole = packed is not None and packed.axis != _AXIS and reader.shard_shape[_AXIS] == 1
    return whole and reader.identity is not None and reader.dtype == np.uint32


def _made(
    reader: ArrayReader, packed: PackedFiles, places: Sequence[Coords], parts: list[bytes]
) -> bytes | None:
    """A file of the sum of these; None where it is there, or one of them is damaged."""
    shape, capacity = list(reader.shard_shape), packed.extent(packed.axis)
    shape[packed.axis] = 1
    total = np.zeros((capacity, *shape), np.int64)
    try:
        left = _begun(reader, packed, places, parts, total)
        if not left:
            return None
        scratch = packed.scratch()
        for place in left:
            file = packed.file(place)
            for position in range(capacity):
                if file is not None and file.decode_into(position, scratch):
                    total[position] += scratch
    except StoreError:
        return None
    return sum_bytes(total, capacity, parts)


def _begun(
    reader: ArrayReader,
    packed: PackedFiles,
    places: Sequence[Coords],
    parts: list[bytes],
    total: np.ndarray,
) -> Sequence[Coords]:
    """Begin with an older sum, where there is one of some of these; those that are not in it."""
    try:
        file = SummedFile(packed, _path(reader, places[0]))
        had = {file.parts[n : n + PART_BYTES] for n in range(0, len(file.parts), PART_BYTES)}
        if not had <= set(parts):
            return places
        known = {item_of(part) for part in had}
        left = [place for place in places if place[_AXIS] not in known]
        if left:
            for position, chunk in enumerate(total):
                chunk[...] = file.chunk(position)
    except _DAMAGE:
        total[...] = 0
        return places
    return left


def _parts(reader: ArrayReader, places: Sequence[Coords]) -> list[bytes] | None:
    """What tells these files; None where no sum is made of them."""
    if len(places) < _FEWEST or not may_sum(reader):
        return None
    identity, found = reader.identity, []
    assert identity is not None
    for place in sorted(places):
        one = identity(place)
        if one is None or one == ABSENT:
            return None
        found.append(part_of(place[_AXIS], one))
    return found


def _are_there(reader: ArrayReader, places: Sequence[Coords], parts: Sequence[bytes]) -> bool:
    """Whether these files lie there, as large as they were.

    Reading them tells better what is wrong with one that does not.
    """
    assert reader.folder is not None
    for place, part in zip(sorted(places), parts, strict=True):
        found = os.lstat(f"{reader.folder}/c/{'/'.join(map(str, place))}")
        if not S_ISREG(found.st_mode) or found.st_size != size_of(part):
            return False
    return True


def _key(reader: ArrayReader, place: Coords) -> str:
    assert reader.folder is not None
    return f"{_SUMS}/{reader.folder.name}/c.{'.'.join(map(str, place[1:]))}"


def _path(reader: ArrayReader, place: Coords) -> Path:
    assert reader.folder is not None
    return reader.folder.parent / _key(reader, place)

"""Compressed counts added up over an axis as they are decoded, a chunk at a time.

What is decoded stays in the processor's cache: no array with that axis is made. Where the store
keeps sums of just these counts, they are read in their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from taqstore.arrays.packed_files import PackedFile, PackedFiles
from taqstore.arrays.selection import Axis, Key, open_mesh, positions_of, take
from taqstore.arrays.store_array import MAPS_KEPT, ArrayReader
from taqstore.arrays.sums.summed_files import read_sum

_Parts = list[tuple[PackedFile | None, list[Any]]]


def adds(reader: ArrayReader, axis: int) -> bool:
    """Whether `added` reads an array along an axis: on a local disk, compressed, of integers."""
    packed = reader.packed
    return packed is not None and packed.axis != axis and reader.dtype.kind in "iu"


def added(reader: ArrayReader, key: Key, axis: int) -> np.ndarray:
    """``reader.read(key).sum(axis, dtype=np.int64)``, where `adds`.

    Parameters
    ----------
    key
        A slice or a 1-D integer array for each axis of the array.

    Returns
    -------
    int64, or uint32 where a sum is kept that it holds, without `axis`; in memory the axis that
    chunks split is the outermost.

    Raises
    ------
    StoreError
        As of `ArrayReader.read`.
    """
    packed = reader.packed
    assert packed is not None
    axes = [Axis(k, n, s) for k, n, s in zip(key, reader.shape, reader.shard_shape, strict=True)]
    reader.check_backed(axes)
    along = axes[axis]
    places = list(product(*(range(len(a.shards)) for n, a in enumerate(axes) if n != axis)))
    if len(places) == 1 and along.shards:
        found = _found_sum(reader, axes, places[0], axis)
        if found is not None:
            return found.squeeze(axis)
    sizes = [1 if n == axis else a.size for n, a in enumerate(axes)]
    lead = sizes.pop(packed.axis)
    whole = np.moveaxis(np.zeros((lead, *sizes), np.int64), 0, packed.axis)
    if not along.shards:
        return whole.squeeze(axis)
    for numbers in places:
        target = [a.target(n) for a, n in _paired(axes, numbers, axis, 0)]
        target[axis] = slice(0, 1)
        mesh = open_mesh(tuple(target), whole.shape)
        found = _found_sum(reader, axes, numbers, axis)
        if found is not None:
            whole[mesh] = found
            continue
        part = whole[mesh]
        _add_up(reader, packed, axes, numbers, axis, part)
        if isinstance(mesh, tuple) and any(isinstance(at, np.ndarray) for at in mesh):
            whole[mesh] = part
    return whole.squeeze(axis)


def _found_sum(
    reader: ArrayReader, axes: list[Axis], numbers: tuple[int, ...], axis: int
) -> np.ndarray | None:
    """What is kept of a sum; None where it is to be worked out."""
    along = axes[axis]
    if axis or along.shard > 1 or along.size != len(along.shards) or reader.fill:
        return None
    paired = [_paired(axes, numbers, axis, n) for n in range(len(along.shards))]
    places = [tuple(a.shards[n] for a, n in pairs) for pairs in paired]
    local = [a.local(n) for a, n in paired[0]]
    return read_sum(reader, [at for at in places if reader.is_there(at)], local)


def _add_up(
    reader: ArrayReader,
    packed: PackedFiles,
    axes: list[Axis],
    numbers: tuple[int, ...],
    axis: int,
    part: np.ndarray,
) -> None:
    """Add files up, not all of them open at a time."""
    shards = axes[axis].shards
    for start in range(0, len(shards), MAPS_KEPT):
        pieces = range(start, min(start + MAPS_KEPT, len(shards)))
        files = [_file(reader, packed, _paired(axes, numbers, axis, n)) for n in pieces]
        _add(packed, files, part, axis)


def _paired(
    axes: list[Axis], numbers: tuple[int, ...], axis: int, piece: int
) -> list[tuple[Axis, int]]:
    """Each axis with the number of its piece; `numbers` has none for `axis`."""
    return list(zip(axes, (*numbers[:axis], piece, *numbers[axis:]), strict=True))


def _file(
    reader: ArrayReader, packed: PackedFiles, pieces: list[tuple[Axis, int]]
) -> tuple[PackedFile | None, list[Any]]:
    """A file, None where it reads as fill, and what is wanted of it."""
    coords = tuple(a.shards[n] for a, n in pieces)
    found = packed.file(coords) if reader.is_there(coords) else None
    return found, [a.local(n) for a, n in pieces]


def _add(packed: PackedFiles, files: _Parts, out: np.ndarray, axis: int) -> None:
    """Add selections of files to an array that has one place along `axis`."""
    scratch, split = packed.scratch(), packed.axis
    for number, position in enumerate(_positions(packed, files)):
        target = out[(*(slice(None),) * split, slice(number, number + 1))]
        for file, local in files:
            if file is None or not file.decode_into(position, scratch):
                fill = np.int64(packed.array.fill_value)
                target += fill * len(positions_of(local[axis], packed.extent(axis)))
                continue
            found = take(scratch, packed.within(local))
            target += found if found.shape[axis] == 1 else found.sum(axis, np.int64, keepdims=True)


def _positions(packed: PackedFiles, files: _Parts) -> Iterator[int]:
    """Which inner chunks are wanted: the same of every file."""
    local = files[0][1][packed.axis]
    yield from positions_of(local, packed.extent(packed.axis)).tolist()

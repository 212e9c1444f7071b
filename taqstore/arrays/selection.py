"""Selections cut at the borders of shards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Key: TypeAlias = tuple[int | slice | np.ndarray, ...]


class Axis:
    """One axis of a selection, cut at shard borders."""

    def __init__(self, key: int | slice | np.ndarray, length: int, shard: int) -> None:
        self.scalar = isinstance(key, (int, np.integer))
        self.shard = shard
        wanted = normalised(key, length)
        self._pieces: list[tuple[int, Any, Any]]
        self.size = len(wanted)
        if isinstance(wanted, range):
            self._pieces = list(_cut_range(wanted, shard))
        else:
            numbers = wanted // shard
            self._pieces = [
                (int(n), wanted[numbers == n] - n * shard, np.flatnonzero(numbers == n))
                for n in np.unique(numbers)
            ]
        self.shards = [piece[0] for piece in self._pieces]

    @property
    def single(self) -> bool:
        """Whether the selection lies inside one shard, in its own order."""
        return len(self._pieces) == 1

    def local(self, number: int) -> slice | np.ndarray:
        """Selection inside the shard of piece `number`."""
        selection: slice | np.ndarray = self._pieces[number][1]
        return selection

    def target(self, number: int) -> slice | np.ndarray:
        """Where piece `number` goes in the result."""
        place: slice | np.ndarray = self._pieces[number][2]
        return place


def normalised(key: int | slice | np.ndarray, length: int) -> range | np.ndarray:
    """Positions from the front of an axis of that length; IndexError beyond it."""
    if isinstance(key, slice):
        return range(*key.indices(length))
    if isinstance(key, (int, np.integer)):
        position = int(key) + (length if key < 0 else 0)
        if not 0 <= position < length:
            raise IndexError(f"index {int(key)} is out of bounds for an axis of {length}")
        return range(position, position + 1)
    positions = np.asarray(key)
    return np.where(positions < 0, positions + length, positions)


def _cut_range(wanted: range, shard: int) -> Iterator[tuple[int, slice, slice]]:
    start = 0
    while start < len(wanted):
        number = wanted[start] // shard
        if wanted.step > 0:
            count = -(-((number + 1) * shard - wanted[start]) // wanted.step)
        else:
            count = (wanted[start] - number * shard) // -wanted.step + 1
        stop = min(start + count, len(wanted))
        piece = wanted[start:stop]
        first, last = piece[0] - number * shard, piece[-1] - number * shard
        end = last + (1 if piece.step > 0 else -1)
        yield number, slice(first, None if end < 0 else end, piece.step), slice(start, stop)
        start = stop


def positions_of(local: slice | np.ndarray, length: int) -> np.ndarray:
    """The positions that a selection of an axis names."""
    return np.arange(length)[local] if isinstance(local, slice) else local


def shifted(local: slice | np.ndarray, first: int) -> slice | np.ndarray:
    """A selection inside a shard that begins there, as one of the whole axis."""
    if isinstance(local, slice) and (local.step or 1) > 0:
        return slice((local.start or 0) + first, local.stop + first, local.step)
    if isinstance(local, slice):
        return np.arange(local.start, -1 if local.stop is None else local.stop, local.step) + first
    return local + first


def narrowed(positions: np.ndarray) -> np.ndarray:
    """Index array with every axis along which it is constant cut to length 1."""
    for axis, length in enumerate(positions.shape):
        if length > 1:
            first = positions.take([0], axis=axis)
            positions = first if (positions == first).all() else positions
    return positions


def mesh_axes(arrays: list[np.ndarray]) -> list[int | None] | None:
    """The one axis each index array runs along (None: a single index); None if not a mesh."""
    axes = [[i for i, n in enumerate(array.shape) if n != 1] for array in arrays]
    running = [axis[0] for axis in axes if axis]
    if any(len(axis) > 1 for axis in axes) or len(set(running)) < len(running):
        return None
    return [axis[0] if axis else None for axis in axes]


def as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Consecutive positions as a slice, which reads without a copy."""
    if positions.size and (positions[0] >= 0) and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def open_mesh(target: Key, shape: tuple[int, ...]) -> Key:
    """Make an orthogonal target usable for assignment where an axis is given by positions."""
    if not any(isinstance(key, np.ndarray) for key in target):
        return target
    return np.ix_(*(np.arange(n)[k] for k, n in zip(target, shape, strict=True)))


def take(view: np.ndarray, local: list[Any]) -> np.ndarray:
    """Orthogonal selection that copies only where an axis is given by positions."""
    for axis, key in enumerate(local):
        index = (slice(None),) * axis + (key,)
        view = view[index]
    return view

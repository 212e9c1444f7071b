"""One array of several stores, read as one: every selection is asked of the stores that hold it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np

from taqstore.arrays.lazy import StoreArray
from taqstore.arrays.selection import Key, as_slice, mesh_axes, narrowed, normalised
from taqstore.arrays.store_array import MAPPED_BYTES, ArrayReader


class JoinedArray(StoreArray):
    """One array of several stores, laid out as if one store had all.

    Parameters
    ----------
    arrays
        Of the stores, alike but for the first axis.
    shape
        Of all together.
    owner
        Number of the array that holds each row, int (row,), or each item, int (row, ...).
    places
        For each array, where it has each row; -1 where it has none.
    """

    def __init__(
        self,
        arrays: Sequence[ArrayReader],
        *,
        shape: tuple[int, ...],
        owner: np.ndarray,
        places: Sequence[np.ndarray],
    ) -> None:
        first = arrays[0]
        self._arrays, self._owner, self._places = list(arrays), owner, list(places)
        self.array, self.folder, self.shape = first.array, None, shape
        self.dtype, self.shard_shape = first.dtype, first.shard_shape
        self.identity = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "origin": None}

    def for_a_pass(self, mapped_bytes: int = MAPPED_BYTES) -> JoinedArray:
        """The same array, to be read once from end to end."""
        other = copy(self)
        other.origin = self
        other._arrays = [array.for_a_pass(mapped_bytes) for array in self._arrays]
        return other

    def read(self, key: Key) -> np.ndarray:
        """Read an orthogonal selection: integers, slices and 1-D integer arrays, one per axis."""
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        asked = [
            np.asarray(normalised(k, n), np.int64) for k, n in zip(key, self.shape, strict=True)
        ]
        owner = self._owner[np.ix_(*asked[: self._owner.ndim])]
        owners = np.unique(owner)
        if len(owners) == 1:
            at = self._places[owners[0]][asked[0]]
            rows = int(at[0]) if _is_number(key[0]) else as_slice(at)
            array: ArrayReader = self._arrays[owners[0]]
            return array.read((rows, *key[1:]))
        kept = [
            slice(int(one[0]), int(one[0]) + 1) if _is_number(k) else k
            for k, one in zip(key[1:], asked[1:], strict=True)
        ]
        out = np.full([len(one) for one in asked], self.fill, self.dtype)
        for number in owners:
            held = owner == number
            some = np.flatnonzero(held.reshape(len(held), -1).any(axis=1))
            at = self._places[number][asked[0][some]]
            values = self._arrays[number].read((as_slice(at), *kept))
            mine = held[some].reshape(*held[some].shape, *(1,) * (self.ndim - held.ndim))
            out[some] = np.where(mine, values, out[some])
        return out[tuple(0 if _is_number(k) else slice(None) for k in key)]

    def points(self, key: tuple[Any, ...]) -> np.ndarray:
        """Pointwise selection: arrays broadcast together (in front), slices stay axes."""
        if any(isinstance(k, slice) for k in key[: self._owner.ndim]):
            return self._spread(key)
        axes = [i for i, k in enumerate(key) if not isinstance(k, slice)]
        points = np.broadcast_arrays(*(np.asarray(key[i]) for i in axes))
        if len(axes) == self.ndim:
            narrow = [narrowed(array) for array in points]
            mesh = mesh_axes(narrow)
            if mesh is not None:
                return self._mesh(narrow, mesh, points[0].shape)
        flat = dict(zip(axes, (p.reshape(-1) for p in points), strict=True))
        flat = {i: np.where(at < 0, at + self.shape[i], at) for i, at in flat.items()}
        owner = self._owner[tuple(flat[i] for i in range(self._owner.ndim))]
        kept = [len(range(*k.indices(n))) for k, n in self._sliced(key)]
        out = np.full((flat[0].size, *kept), self.fill, self.dtype)
        for number in np.unique(owner):
            mine = owner == number
            asked = {i: at[mine] for i, at in flat.items()}
            asked[0] = self._places[number][asked[0]]
            out[mine] = self._arrays[number].points(
                tuple(asked.get(i, k) for i, k in enumerate(key))
            )
        return out.reshape(points[0].shape + out.shape[1:])

    def _sliced(self, key: tuple[Any, ...]) -> Iterator[tuple[slice, int]]:
        pairs = zip(key, self.shape, strict=True)
        return ((k, n) for k, n in pairs if isinstance(k, slice))

    def _spread(self, key: tuple[Any, ...]) -> np.ndarray:
        """Slices over items asked for one by one, as further axes of points."""
        items = self._owner.ndim
        spread = [i for i in range(items) if isinstance(key[i], slice)]
        arrays = [np.asarray(k) for k in key if not isinstance(k, slice)]
        depth = len(np.broadcast_shapes(*(array.shape for array in arrays)))
        parts: list[Any] = list(key)
        for place, i in enumerate(spread):
            at = np.arange(self.shape[i])[key[i]]
            parts[i] = at.reshape(-1, *(1,) * (len(spread) - 1 - place + depth))
        found = self.points(tuple(parts))
        # The points come first, then sliced axes in the order of the array's.
        return np.moveaxis(found, range(len(spread)), range(depth, depth + len(spread)))


def _is_number(key: Any) -> bool:
    return isinstance(key, (int, np.integer))

"""Lazy arrays over a store: memory-mapped where the layout allows it, through zarr otherwise.

`StoreArray` is what the Datasets of `open_store` are made of. Basic selections inside one shard
come back as views of the mapped file; pointwise selections (random minibatches) touch only the
shards they name.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from taqstore.errors import StoreError, problem
from taqstore.store.groups import CODEC_ERRORS
from taqstore.store.shards import Framing, MappedShard

if TYPE_CHECKING:
    import zarr

# Open maps kept per array: enough for a minibatch, far below the kernel's limit of 65,530 maps.
MAPS_KEPT = 64
Key: TypeAlias = tuple[int | slice | np.ndarray, ...]


def framing_of(array: zarr.Array[Any]) -> Framing | None:
    """The framing of an array's shard files, or None where they cannot be mapped."""
    metadata: Any = array.metadata
    codecs: list[Any] = [codec.to_dict() for codec in metadata.codecs]
    shard = array.shards or array.chunks
    axes = [i for i, (s, c) in enumerate(zip(shard, array.chunks, strict=True)) if s != c]
    if array.shards is not None:
        if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
            return None
        configuration: Any = codecs[0]["configuration"]
        plain_index = [c["name"] for c in configuration["index_codecs"]] == ["bytes", "crc32c"]
        if not plain_index or configuration["index_location"] != "end":
            return None
        codecs = configuration["codecs"]
        axes = axes or [shard.index(1) if 1 in shard else -1]
        if len(axes) > 1 or array.chunks[axes[0]] != 1:
            return None
    plain = [c["name"] for c in codecs] == ["bytes", "crc32c"]
    endian = codecs[0].get("configuration", {}).get("endian", "little") if plain else ""
    if not plain or endian != "little" or array.dtype.kind not in "biuf":
        return None
    return Framing(tuple(shard), array.dtype, axes[0] if array.shards is not None else None)


class StoreArray(BackendArray):
    """One array of a store, read lazily.

    Parameters
    ----------
    array
        The Zarr array.
    folder
        Its folder on a local disk; None reads through zarr.
    shape
        Shape to present: the array's, clipped to the length of the group's mask.
    complete
        Mask over the leading item axes; where it is False the array reads as its fill value.
        None: everything is complete.
    checksum
        Compare the checksum of every chunk when it is first read.
    mapped_bytes
        Keep maps of about as many bytes between reads, one at least; None: of any size.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        *,
        folder: Path | None,
        shape: tuple[int, ...],
        complete: np.ndarray | None = None,
        checksum: bool = True,
        mapped_bytes: int | None = None,
    ) -> None:
        self.array, self.folder, self.shape = array, folder, shape
        self.dtype = array.dtype
        self.complete, self.checksum = complete, checksum
        self.mapped_bytes = mapped_bytes
        self.framing = framing_of(array) if folder is not None else None
        self.shard_shape = tuple(array.shards or array.chunks)
        self._maps: OrderedDict[tuple[int, ...], MappedShard | None] = OrderedDict()
        self._checked: dict[tuple[int, ...], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": OrderedDict()}

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def fill(self) -> Any:
        """Value of what is not written."""
        return self.array.fill_value

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, indexing.VectorizedIndexer):
            return self.points(key.tuple)
        if isinstance(key, indexing.ExplicitIndexer):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self.read
            )
        return self.read(key if isinstance(key, tuple) else (key,))

    def read(self, key: Key) -> np.ndarray:
        """Read an orthogonal selection: integers, slices and 1-D integer arrays, one per axis."""
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        axes = [_Axis(k, n, s) for k, n, s in zip(key, self.shape, self.shard_shape, strict=True)]
        if all(axis.single for axis in axes):
            part = self._shard_part(tuple(a.shards[0] for a in axes), [a.local(0) for a in axes])
            if part is not None:
                return part[tuple(0 if a.scalar else slice(None) for a in axes)]
        out = np.empty(tuple(a.size for a in axes), self.dtype)
        for numbers in itertools.product(*(range(len(a.shards)) for a in axes)):
            target = tuple(a.target(n) for a, n in zip(axes, numbers, strict=True))
            coords = tuple(a.shards[n] for a, n in zip(axes, numbers, strict=True))
            part = self._shard_part(
                coords, [a.local(n) for a, n in zip(axes, numbers, strict=True)]
            )
            out[_open_mesh(target, out.shape)] = self.fill if part is None else part
        return out[tuple(0 if a.scalar else slice(None) for a in axes)]

    def points(self, key: tuple[Any, ...]) -> np.ndarray:
        """Pointwise selection: arrays broadcast together (in front), slices stay axes."""
        arrays = {i: np.asarray(k) for i, k in enumerate(key) if not isinstance(k, slice)}
        points = np.broadcast_arrays(*arrays.values())
        if len(arrays) == self.ndim:
            narrow = [_narrowed(array) for array in points]
            axes = _mesh_axes(narrow)
            if axes is not None:
                return self._mesh(narrow, axes, points[0].shape)
        flat = [p.reshape(-1) for p in points]
        kept = [
            range(*k.indices(n))
            for k, n in zip(key, self.shape, strict=True)
            if isinstance(k, slice)
        ]
        out = np.empty((flat[0].size, *map(len, kept)), self.dtype)
        fixed = {
            i: _Axis(k, n, s)
            for i, (k, n, s) in enumerate(zip(key, self.shape, self.shard_shape, strict=True))
            if isinstance(k, slice)
        }
        read = self._one_shard if all(axis.single for axis in fixed.values()) else self._any_shard
        for row, point in enumerate(zip(*flat, strict=True)):
            out[row] = read(key, dict(zip(arrays, map(int, point), strict=True)), fixed)
        return out.reshape(points[0].shape + out.shape[1:])

    def _any_shard(
        self, key: tuple[Any, ...], point: dict[int, int], fixed: dict[int, _Axis]
    ) -> Any:
        """One point; its slices may cross shards."""
        return self.read(tuple(point.get(i, k) for i, k in enumerate(key)))

    def _one_shard(
        self, key: tuple[Any, ...], point: dict[int, int], fixed: dict[int, _Axis]
    ) -> Any:
        """One point whose slices, cut once for all points, lie inside one shard."""
        coords, local = [], []
        for axis, shard in enumerate(self.shard_shape):
            if axis in fixed:
                coords.append(fixed[axis].shards[0])
                local.append(fixed[axis].local(0))
            else:
                (at,) = _normalised(point[axis], self.shape[axis])
                coords.append(at // shard)
                local.append(slice(at % shard, at % shard + 1))
        part = self._shard_part(tuple(coords), local)
        if part is None:
            return self.fill
        return part[tuple(0 if axis in point else slice(None) for axis in range(self.ndim))]

    def _mesh(
        self, arrays: list[np.ndarray], axes: list[int | None], shape: tuple[int, ...]
    ) -> np.ndarray:
        """Orthogonal selection asked for pointwise, as xarray does for a transposed variable."""
        values = self.read(tuple(_as_slice(array.ravel()) for array in arrays))
        single = tuple(i for i, axis in enumerate(axes) if axis is None)
        order = np.argsort([axis for axis in axes if axis is not None], kind="stable")
        narrow = np.broadcast_shapes(*(array.shape for array in arrays))
        return np.broadcast_to(values.squeeze(single).transpose(order).reshape(narrow), shape)

    def _shard_part(self, coords: tuple[int, ...], local: list[Any]) -> np.ndarray | None:
        """A selection inside one shard, every axis kept; None where it reads as fill."""
        if not self._is_complete(coords):
            return None
        if self.framing is None:
            return self._read_zarr(coords, local)
        shard = self._map(coords)
        if shard is None:
            return None
        axis = self.framing.axis
        if self.checksum:
            shard.check(None if axis is None else _positions(local[axis], shard.present))
        return _take(shard.view, local)

    def _is_complete(self, coords: tuple[int, ...]) -> bool:
        if self.complete is None:
            return True
        return bool(self.complete[coords[: self.complete.ndim]])

    def _map(self, coords: tuple[int, ...]) -> MappedShard | None:
        assert self.folder is not None
        assert self.framing is not None
        with suppress(KeyError):  # another thread may be making room
            self._maps.move_to_end(coords)
            return self._maps[coords]
        path = self.folder.joinpath("c", *map(str, coords))
        shard = MappedShard(path, self.framing) if path.exists() else None
        if shard is not None:  # mapped again after making room, its chunks are not compared again
            shard.checked = self._checked.setdefault(coords, shard.checked)
        self._maps[coords] = shard
        while len(self._maps) > self._maps_kept:
            self._maps.popitem(last=False)
        return shard

    @property
    def _maps_kept(self) -> int:
        if self.mapped_bytes is None:
            return MAPS_KEPT
        shard = max(1, math.prod(self.shard_shape) * self.dtype.itemsize)
        return min(MAPS_KEPT, max(1, self.mapped_bytes // shard))

    def _read_zarr(self, coords: tuple[int, ...], local: list[Any]) -> np.ndarray:
        first = [c * s for c, s in zip(coords, self.shard_shape, strict=True)]
        absolute = tuple(_shifted(k, f) for k, f in zip(local, first, strict=True))
        try:
            return np.asarray(self.array.oindex[absolute])
        except CODEC_ERRORS as error:
            raise StoreError(
                problem(
                    "damaged chunk",
                    where=f"{self.array.path} shard {'/'.join(map(str, coords))}",
                    found=str(error),
                    remedy="run taqstore verify; write the item again with --force",
                )
            ) from error


class _Axis:
    """One axis of a selection, cut at shard borders."""

    def __init__(self, key: int | slice | np.ndarray, length: int, shard: int) -> None:
        self.scalar = isinstance(key, (int, np.integer))
        self.shard = shard
        wanted = _normalised(key, length)
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


def _normalised(key: int | slice | np.ndarray, length: int) -> range | np.ndarray:
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


def _positions(local: slice | np.ndarray, length: int) -> np.ndarray:
    return np.arange(length)[local] if isinstance(local, slice) else local


def _shifted(local: slice | np.ndarray, first: int) -> slice | np.ndarray:
    if isinstance(local, slice) and (local.step or 1) > 0:
        return slice((local.start or 0) + first, local.stop + first, local.step)
    if isinstance(local, slice):
        return np.arange(local.start, -1 if local.stop is None else local.stop, local.step) + first
    return local + first


def _narrowed(positions: np.ndarray) -> np.ndarray:
    """Index array with every axis along which it is constant cut to length 1."""
    for axis, length in enumerate(positions.shape):
        if length > 1:
            first = positions.take([0], axis=axis)
            positions = first if (positions == first).all() else positions
    return positions


def _mesh_axes(arrays: list[np.ndarray]) -> list[int | None] | None:
    """The one axis each index array runs along (None: a single index); None if not a mesh."""
    axes = [[i for i, n in enumerate(array.shape) if n != 1] for array in arrays]
    running = [axis[0] for axis in axes if axis]
    if any(len(axis) > 1 for axis in axes) or len(set(running)) < len(running):
        return None
    return [axis[0] if axis else None for axis in axes]


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Consecutive positions as a slice, which reads without a copy."""
    if positions.size and (positions[0] >= 0) and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def _open_mesh(target: Key, shape: tuple[int, ...]) -> Key:
    """Make an orthogonal target usable for assignment where an axis is given by positions."""
    if not any(isinstance(key, np.ndarray) for key in target):
        return target
    return np.ix_(*(np.arange(n)[k] for k, n in zip(target, shape, strict=True)))


def _take(view: np.ndarray, local: list[Any]) -> np.ndarray:
    """Orthogonal selection that copies only where an axis is given by positions."""
    for axis, key in enumerate(local):
        index = (slice(None),) * axis + (key,)
        view = view[index]
    return view

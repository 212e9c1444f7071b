"""Lazy arrays over a store: memory-mapped where the layout allows it, through zarr otherwise.

`ArrayReader` is what the Datasets of `open_store` read through. Basic selections inside one shard
come back as views of the mapped file; pointwise selections (random minibatches) touch only the
shards they name.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from taqstore.arrays.checked_files import CheckedFiles, damaged, lost
from taqstore.arrays.far_files import Asked, FarFiles
from taqstore.arrays.inner_chunks import framing_of
from taqstore.arrays.packed_files import PackedFiles
from taqstore.arrays.pieces import Pieces
from taqstore.arrays.selection import (
    Axis,
    Key,
    as_slice,
    mesh_axes,
    narrowed,
    normalised,
    open_mesh,
    positions_of,
    shifted,
    take,
)
from taqstore.errors import StoreError, problem
from taqstore.layout.item_records import ABSENT, Identity
from taqstore.layout.nodes import ArrayNode
from taqstore.layout.shards import CODEC_ERRORS, MappedShard
from taqstore.place.whole_files import MapBudget
from taqstore.place.zarr_backend import ZarrBackend

if TYPE_CHECKING:
    import zarr

MAPPED_BYTES = 16 << 20
"""A pass over a whole array reads every shard once: pages of maps that stay would fill memory."""

# Open maps kept per array: enough for a minibatch, far below the kernel's limit of 65,530 maps.
MAPS_KEPT = 64
# Bytes of fill that one reading may make up, and how often as much as it reads beyond that.
_MADE_UP, _SPARSEST = 256 << 20, 64
_WHOLE = slice(None)
# Bytes that arrays read in passes keep mapped, all together: those of sites that are done would be
# kept as long as a graph that names them.
_PASSING_BYTES = 64 << 20
# Of an array that a pass leaves mapped: to open its files again takes longer than to read them.
_LITTLE = 1 << 20
_passing = MapBudget(_PASSING_BYTES)


class ArrayReader:
    """One array of a store, read lazily.

    Parameters
    ----------
    array
        The Zarr array.
    folder
        Its folder on a local disk; None reads through `pieces`.
    shape
        Shape to present: the array's, clipped to the length of the group's mask.
    complete
        Mask over the leading item axes; where it is False the array reads as its fill value.
        None: everything is complete.
    identity
        Size and fingerprint of the shard at a grid position, `ABSENT` for one that was never
        written, None where its item is not flagged: these two read as fill, and any other file
        than the one named is refused. None: files are taken as they are found. Far away, its
        `ahead`, where it has one, is told of all shards that are about to be asked for.
    sparse
        Without `identity`: shards may be missing. Otherwise a missing one is refused.
    checksum
        Compare the checksum of every chunk when it is first read.
    mapped_bytes
        Keep maps of about as many bytes between reads, one at least; None: of any size.
    pieces
        Where the bytes of files come from that are on no local disk; None: from `array` itself.

    Attributes
    ----------
    token
        What tells it from arrays of other stores, where it is to be put behind dask late.
    origin
        The array that this one is a copy of, so that dask knows that both are the same.
    """

    token: str = ""
    origin: ArrayReader | None = None

    def __init__(
        self,
        array: zarr.Array[Any] | ArrayNode,
        *,
        folder: Path | None,
        shape: tuple[int, ...],
        complete: np.ndarray | None = None,
        identity: Callable[[tuple[int, ...]], Identity | None] | None = None,
        sparse: bool = False,
        checksum: bool = True,
        mapped_bytes: int | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        self.array, self.folder, self.shape = array, folder, shape
        self.dtype = array.dtype
        self.complete, self.checksum = complete, checksum
        self.identity, self.sparse = identity, sparse
        self.mapped_bytes = mapped_bytes
        self.framing = framing_of(array) if folder is not None else None
        self.shard_shape = tuple(array.shards or array.chunks)
        self._files = (
            None if folder is None else CheckedFiles(array, folder, identity, sparse=sparse)
        )
        self.packed = None
        if folder is not None and self.framing is None:
            self.packed = PackedFiles.of(array, folder, identity, sparse=sparse)
        self._far = None
        if folder is None:
            pieces = pieces or Pieces(ZarrBackend(array.store))
            self._far = FarFiles(array, identity, sparse=sparse, pieces=pieces)
        self._maps: OrderedDict[tuple[int, ...], MappedShard | None] = OrderedDict()
        self._checked: dict[tuple[int, ...], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": OrderedDict(), "origin": None}

    def for_a_pass(self, mapped_bytes: int = MAPPED_BYTES) -> Self:
        """The same array, to be read once from end to end; one that is small keeps what it read."""
        if self._is_little:
            return self
        other = copy(self)
        other.origin, other.mapped_bytes, other._maps = self, mapped_bytes, OrderedDict()
        return other

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def fill(self) -> Any:
        """Value of what is not written."""
        return self.array.fill_value

    def read(self, key: Key) -> np.ndarray:
        """Read an orthogonal selection: integers, slices and 1-D integer arrays, one per axis."""
        held = self._held(key) if self._maps else None
        if held is not None:
            return held
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        axes = [Axis(k, n, s) for k, n, s in zip(key, self.shape, self.shard_shape, strict=True)]
        if self.packed is not None:
            return self._read_packed(self.packed, axes)
        if all(axis.single for axis in axes):
            coords, local = tuple(a.shards[0] for a in axes), [a.local(0) for a in axes]
            if self._far is None:
                part = self._shard_part(coords, local)
            else:
                (part,) = self._parts([(coords, local)])
            if part is not None:
                return part[tuple(0 if a.scalar else slice(None) for a in axes)]
        self.check_backed(axes)
        out = np.empty(tuple(a.size for a in axes), self.dtype)
        places = list(itertools.product(*(range(len(a.shards)) for a in axes)))
        asked = (
            (
                tuple(a.shards[n] for a, n in zip(axes, numbers, strict=True)),
                [a.local(n) for a, n in zip(axes, numbers, strict=True)],
            )
            for numbers in places
        )
        for numbers, part in zip(places, self._parts(asked), strict=True):
            target = tuple(a.target(n) for a, n in zip(axes, numbers, strict=True))
            out[open_mesh(target, out.shape)] = self.fill if part is None else part
        return out[tuple(0 if a.scalar else slice(None) for a in axes)]

    def _read_packed(self, packed: PackedFiles, axes: list[Axis]) -> np.ndarray:
        """As `read`; the axis that chunks split is the outermost in memory.

        So that each of them is decoded to its place.
        """
        self.check_backed(axes)
        sizes = [axis.size for axis in axes]
        lead = sizes.pop(packed.axis)
        out = np.moveaxis(np.empty((lead, *sizes), self.dtype), 0, packed.axis)
        for numbers in itertools.product(*(range(len(a.shards)) for a in axes)):
            coords = tuple(a.shards[n] for a, n in zip(axes, numbers, strict=True))
            local = [a.local(n) for a, n in zip(axes, numbers, strict=True)]
            target = tuple(a.target(n) for a, n in zip(axes, numbers, strict=True))
            mesh = open_mesh(target, out.shape)
            if not self.is_there(coords):
                out[mesh] = self.fill
            elif mesh is target:
                packed.read_into(coords, local, out[mesh])
            else:
                part = np.empty_like(out[mesh])
                packed.read_into(coords, local, part)
                out[mesh] = part
        return out[tuple(0 if a.scalar else slice(None) for a in axes)]

    @cached_property
    def _is_little(self) -> bool:
        """Whether all of it may stay mapped."""
        files = math.prod(-(-n // s) for n, s in zip(self.shape, self.shard_shape, strict=True))
        little = files <= MAPS_KEPT and files * self._shard_bytes <= _LITTLE
        return little and self.framing is not None

    @property
    def inner_axis(self) -> int | None:
        """The axis whose places are read one without the others, if there is one."""
        if self.packed is not None:
            return self.packed.axis
        return None if self.framing is None else self.framing.axis

    def _held(self, key: Key) -> np.ndarray | None:
        """A selection inside one shard that is mapped and was compared; None: read it otherwise.

        Only positions and whole axes, which is what a label selects: this takes a tenth of the
        time of cutting any selection.
        """
        if len(key) != self.ndim:
            return None
        coords, local = [0] * len(key), list[Any](key)
        for axis, (at, length, shard) in enumerate(
            zip(key, self.shape, self.shard_shape, strict=True)
        ):
            if type(at) is slice and at == _WHOLE and length <= shard:
                local[axis] = slice(0, length)
            elif isinstance(at, (int, np.integer)) and -length <= at < length:
                coords[axis], local[axis] = divmod(int(at) % length, shard)
            else:
                return None
        shard_at = tuple(coords)
        mapped = self._maps.get(shard_at)
        if mapped is None or not mapped.holds(local, checked=self.checksum):
            return None
        with suppress(KeyError):  # another thread may be making room
            self._maps.move_to_end(shard_at)
        found: np.ndarray = mapped.view[tuple(local)]
        return found

    def check_backed(self, axes: list[Axis]) -> None:
        """Refuse to make up gigabytes for files that were never written, whatever they claim."""
        size = math.prod(axis.size for axis in axes) * self.dtype.itemsize
        if size <= _MADE_UP or self.identity is None:
            return
        places = list(itertools.product(*(axis.shards for axis in axes)))
        self._read_ahead(places)
        there = sum(self.identity(place) not in (None, ABSENT) for place in places)
        if there * math.prod(self.shard_shape) * self.dtype.itemsize * _SPARSEST < size:
            what = f"{size} bytes asked for, of which next to nothing was written"
            raise StoreError(problem(what, where=self.array.path, remedy="ask for less"))

    def points(self, key: tuple[Any, ...]) -> np.ndarray:
        """Pointwise selection: arrays broadcast together (in front), slices stay axes."""
        arrays = {i: np.asarray(k) for i, k in enumerate(key) if not isinstance(k, slice)}
        points = np.broadcast_arrays(*arrays.values())
        if len(arrays) == self.ndim:
            narrow = [narrowed(array) for array in points]
            axes = mesh_axes(narrow)
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
            i: Axis(k, n, s)
            for i, (k, n, s) in enumerate(zip(key, self.shape, self.shard_shape, strict=True))
            if isinstance(k, slice)
        }
        rows = [
            dict(zip(arrays, map(int, point), strict=True)) for point in zip(*flat, strict=True)
        ]
        if not all(axis.single for axis in fixed.values()):
            for row, point in enumerate(rows):  # slices that cross shards
                out[row] = self.read(tuple(point.get(i, k) for i, k in enumerate(key)))
            return out.reshape(points[0].shape + out.shape[1:])
        within = tuple(0 if axis in arrays else slice(None) for axis in range(self.ndim))
        asked = (self._in_one_shard(point, fixed) for point in rows)
        for row, part in enumerate(self._parts(asked)):
            out[row] = self.fill if part is None else part[within]
        return out.reshape(points[0].shape + out.shape[1:])

    def _in_one_shard(self, point: dict[int, int], fixed: dict[int, Axis]) -> Asked:
        """Where a point is whose slices, cut once for all points, lie inside one shard."""
        coords, local = [], []
        for axis, shard in enumerate(self.shard_shape):
            if axis in fixed:
                coords.append(fixed[axis].shards[0])
                local.append(fixed[axis].local(0))
            else:
                (at,) = normalised(point[axis], self.shape[axis])
                coords.append(at // shard)
                local.append(slice(at % shard, at % shard + 1))
        return tuple(coords), local

    def _mesh(
        self, arrays: list[np.ndarray], axes: list[int | None], shape: tuple[int, ...]
    ) -> np.ndarray:
        """Orthogonal selection asked for pointwise, as xarray does for a transposed variable."""
        values = self.read(tuple(as_slice(array.ravel()) for array in arrays))
        single = tuple(i for i, axis in enumerate(axes) if axis is None)
        order = np.argsort([axis for axis in axes if axis is not None], kind="stable")
        narrow = np.broadcast_shapes(*(array.shape for array in arrays))
        return np.broadcast_to(values.squeeze(single).transpose(order).reshape(narrow), shape)

    def _parts(self, asked: Iterable[Asked]) -> Iterator[np.ndarray | None]:
        """Selections inside shards, every axis kept; None where one reads as fill."""
        if self._far is None:
            for coords, local in asked:
                yield self._shard_part(coords, local)
            return
        every = list(asked)
        self._read_ahead(coords for coords, _ in every)
        there = [self.is_there(coords) for coords, _ in every]
        found = self._far.parts(
            [one for one, is_there in zip(every, there, strict=True) if is_there]
        )
        for is_there in there:
            yield next(found) if is_there else None

    def _read_ahead(self, places: Iterable[tuple[int, ...]]) -> None:
        """Have what identifies some shards read together, where it is not there yet."""
        ahead = getattr(self.identity, "ahead", None)
        if self._far is not None and ahead is not None:
            ahead(places)

    def is_there(self, coords: tuple[int, ...]) -> bool:
        """Whether the item of a shard is flagged, and has such a file."""
        if not self._is_complete(coords):
            return False
        return self.identity is None or self.identity(coords) not in (None, ABSENT)

    def _shard_part(self, coords: tuple[int, ...], local: list[Any]) -> np.ndarray | None:
        """As `_parts`, of one shard on a local disk."""
        # What is mapped was there, and its item stays flagged.
        if coords not in self._maps and not self.is_there(coords):
            return None
        if self.framing is None:
            return self._read_zarr(coords, local)
        shard = self._map(coords)
        if shard is None:
            return None
        axis = self.framing.axis
        if self.checksum and not shard.checked.all():
            shard.check(None if axis is None else positions_of(local[axis], shard.present))
        return take(shard.view, local)

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
        shard = None
        if path.exists() or not self.sparse:
            shard = self._named(path, coords)
        if shard is not None:  # mapped again after making room, its chunks are not compared again
            shard.checked = self._checked.setdefault(coords, shard.checked)
        self._maps[coords] = shard
        with suppress(KeyError):
            while len(self._maps) > self._maps_kept:
                self._maps.popitem(last=False)
        if self.mapped_bytes is not None:
            _passing.took(self, len(self._maps) * self._shard_bytes)
        return shard

    def unmap(self) -> None:
        """Let go of all maps; what is read next is mapped again."""
        self._maps.clear()

    def _named(self, path: Path, coords: tuple[int, ...]) -> MappedShard:
        """Map the shard's file; refuse one that is missing or that is another."""
        assert self.framing is not None
        try:
            shard = MappedShard(path, self.framing)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise lost(str(path), "missing, though its item is flagged") from error
        if self.identity is not None and shard.identity != self.identity(coords):
            raise lost(str(path), "not the file that was written here")
        return shard

    @property
    def _maps_kept(self) -> int:
        if self.mapped_bytes is None:
            return MAPS_KEPT
        return min(MAPS_KEPT, max(1, self.mapped_bytes // self._shard_bytes))

    @cached_property
    def _shard_bytes(self) -> int:
        return max(1, math.prod(self.shard_shape) * self.dtype.itemsize)

    def _read_zarr(self, coords: tuple[int, ...], local: list[Any]) -> np.ndarray:
        assert self._files is not None
        array = self._files.array_of(coords)
        first = [c * s for c, s in zip(coords, self.shard_shape, strict=True)]
        absolute = tuple(shifted(k, f) for k, f in zip(local, first, strict=True))
        try:
            return np.asarray(array.oindex[absolute])
        except CODEC_ERRORS as error:
            where = f"{self.array.path}/c/{'/'.join(map(str, coords))}"
            raise damaged(where, error) from error

"""Arrays of a store behind dask, in blocks of whole shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray.core import indexing

from taqstore.arrays.lazy import LazyArray, StoreArray
from taqstore.arrays.selection import Key

if TYPE_CHECKING:
    import xarray as xr

# Shards are merged into dask blocks of about this size: small blocks drown in scheduling
# (one layer per task takes 2-6 s for what a loop does in 0.4-0.8 s, measured: docs/notes.md).
_BLOCK_BYTES = 32 << 20
# Of mapped shards, which are read in part: with all batches of a few layers.
_PART_BYTES = 8 << 20


class _Source:
    """What dask slices: a StoreArray behind the few attributes `from_array` asks for."""

    def __init__(self, lazy: StoreArray) -> None:
        self.lazy, self.shape, self.dtype, self.ndim = lazy, lazy.shape, lazy.dtype, lazy.ndim

    def __getitem__(self, key: Key) -> np.ndarray:
        return self.lazy.read(key)


def as_dask(lazy: StoreArray, token: str, *, parts: bool = False) -> Any:
    """A dask array over `lazy`; `token` tells it from those of other stores.

    With `parts` mapped shards are cut: see `_parts`.
    """
    import dask.array as da

    blocks = (_parts if parts else _whole)(lazy)
    meta = np.empty((0,) * lazy.ndim, lazy.dtype)
    same = id(lazy.origin or lazy)  # the graph keeps both, so that no other array has this number
    name = f"taqstore-{hashlib.sha256(token.encode()).hexdigest()[:12]}-{same:x}"
    return da.from_array(  # type: ignore[no-untyped-call]
        _Source(lazy), chunks=blocks, name=name, asarray=False, meta=meta
    )


def preferred_chunks(lazy: StoreArray, dims: Sequence[str]) -> dict[str, int]:
    """Sizes of the blocks by dimension, as `Dataset.chunk({})` of xarray looks for them."""
    blocks = _whole(lazy)
    return dict(zip(dims, blocks, strict=True))


def behind_dask(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset whose arrays that are to be put behind dask late are so now, as selected."""
    found = {
        name: variable.copy(deep=False, data=blocks)
        for name, variable in dataset.variables.items()
        if (blocks := _blocks_of(variable)) is not None
    }
    return dataset.assign(found) if found else dataset


def _blocks_of(variable: xr.Variable) -> Any:
    """What a variable reads, behind dask; None where that is no array that waits for it.

    A transposed or pointwise selection stays as it is: it is read when it is used.
    """
    lazy = variable._data
    if not isinstance(lazy, LazyArray) or not lazy.array.token:
        return None
    whole = as_dask(lazy.array.for_a_pass(), lazy.array.token, parts=True)
    if all(key == slice(None) or key == slice(0, n, 1) for key, n in _selected(lazy)):
        return whole
    return indexing.DaskIndexingAdapter(whole).oindex[lazy.key]  # type: ignore[no-untyped-call]


def _selected(lazy: LazyArray) -> Iterator[tuple[Any, int]]:
    for key, length in zip(lazy.key.tuple, lazy.array.shape, strict=True):
        yield (key if isinstance(key, slice) else None), length


def _whole(lazy: StoreArray) -> tuple[int, ...]:
    return _block_shape(lazy.shape, lazy.shard_shape, lazy.dtype.itemsize)


def _parts(lazy: StoreArray) -> tuple[int, ...]:
    """Shape of the blocks: whole shards, or of mapped ones as many inner chunks as fit.

    A chunk of a mapped shard is read without the others, so that a block may have all batches of
    some layers, which most questions join, and not all layers of some batches.
    """
    shape, shard = lazy.shape, lazy.shard_shape
    axis = getattr(lazy, "inner_axis", None)  # several stores joined have none
    if axis is None:
        return _whole(lazy)
    inner = tuple(1 if at == axis else size for at, size in enumerate(shard))
    order = [*(at for at in reversed(range(len(shape))) if at < axis), axis]
    block = list(_block_shape(shape, inner, lazy.dtype.itemsize, order=order, most=_PART_BYTES))
    # As many blocks as there must be, of about one size.
    block[axis] = -(-shape[axis] // -(-shape[axis] // block[axis])) if shape[axis] else 1
    return tuple(block)


def _block_shape(
    shape: tuple[int, ...],
    shard: tuple[int, ...],
    itemsize: int,
    *,
    order: Sequence[int] | None = None,
    most: int = _BLOCK_BYTES,
) -> tuple[int, ...]:
    """Whole shards, several along the axes in turn while a block stays small."""
    block = [max(1, min(s, n)) for s, n in zip(shard, shape, strict=True)]
    for axis in reversed(range(len(block))) if order is None else order:
        room = most // max(1, prod(block) * itemsize)
        if room > 1:
            block[axis] = max(1, min(shape[axis], block[axis] * room))
    return tuple(block)

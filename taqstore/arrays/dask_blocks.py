"""Arrays of a store behind dask, in blocks of whole shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray.core import indexing

from taqstore.arrays import block_shapes
from taqstore.arrays.lazy import LazyArray, StoreArray
from taqstore.arrays.selection import Key

if TYPE_CHECKING:
    import xarray as xr


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

    blocks = (block_shapes.parts if parts else block_shapes.whole_shards)(lazy)
    meta = np.empty((0,) * lazy.ndim, lazy.dtype)
    same = id(lazy.origin or lazy)  # the graph keeps both, so that no other array has this number
    name = f"taqstore-{hashlib.sha256(token.encode()).hexdigest()[:12]}-{same:x}"
    return da.from_array(  # type: ignore[no-untyped-call]
        _Source(lazy), chunks=blocks, name=name, asarray=False, meta=meta
    )


def preferred_chunks(lazy: StoreArray, dims: Sequence[str]) -> dict[str, int]:
    """Sizes of the blocks by dimension, as `Dataset.chunk({})` of xarray looks for them."""
    blocks = block_shapes.whole_shards(lazy)
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

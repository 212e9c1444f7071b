"""Lazy indexing for xarray that keeps pointwise selections narrow.

xarray's own `LazilyIndexedArray` turns a pointwise selection with slices (eight random samples, all
tokens, all channels) into index arrays over every element, which take far longer to build than the
data to read. Here slices stay slices.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing
from xarray.namedarray import pycompat

from taqstore.arrays.store_array import MAPPED_BYTES, ArrayReader

_WHOLE = slice(None)
_LITTLE = 1 << 20
BLOCK_BYTES = 16 << 20
"""Of the largest variable of what is read at a time."""


class StoreArray(ArrayReader, BackendArray):
    """One array of a store, for xarray."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, indexing.VectorizedIndexer):
            return self.points(key.tuple)
        if isinstance(key, indexing.ExplicitIndexer):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self.read
            )
        return self.read(key if isinstance(key, tuple) else (key,))


class LazyArray(indexing.LazilyIndexedArray):
    """A `StoreArray` with a pending orthogonal selection."""

    __slots__ = ()

    def get_duck_array(self) -> np.ndarray:
        """Read now."""
        store: StoreArray = self.array
        if type(self.key) is indexing.BasicIndexer:  # positions and slices need no sorting
            return np.asarray(store.read(self.key.tuple))
        found: np.ndarray = super().get_duck_array()  # type: ignore[no-untyped-call]
        return found

    def at(self, axis: int, position: int) -> LazyArray:
        """One position along an axis of what it gives, still unread."""
        key = list(self.key.tuple)
        (place, kept) = [(n, k) for n, k in enumerate(key) if not isinstance(k, int)][axis]
        if isinstance(kept, slice):
            kept = range(*kept.indices(self.array.shape[place]))
        key[place] = int(kept[position])
        return LazyArray(self.array, type(self.key)(tuple(key)))

    def __getitem__(self, indexer: indexing.ExplicitIndexer) -> Any:
        key = indexer.tuple
        chosen = [n for n, one in enumerate(key) if not (type(one) is slice and one == _WHOLE)]
        if len(chosen) == 1 and type(key[chosen[0]]) is int and len(key) == self.ndim:
            return self.at(chosen[0], key[chosen[0]])
        return super().__getitem__(indexer)

    def _vindex_get(self, indexer: indexing.VectorizedIndexer) -> Any:
        store: StoreArray = self.array
        key = _composed(self.key.tuple, indexer.tuple, store.shape)
        if key is None:
            return super()._vindex_get(indexer)
        return LazyPoints(store, key)


def for_a_pass(dataset: xr.Dataset, *, mapped_bytes: int = MAPPED_BYTES) -> xr.Dataset:
    """The same Dataset; what is read of it late stays mapped no longer than it is read.

    Of each variable as many files as have `mapped_bytes`, and at least one.
    """
    found = {
        name: variable.copy(deep=False, data=_for_a_pass(lazy, mapped_bytes))
        for name, variable in dataset.variables.items()
        if isinstance(lazy := variable._data, LazyArray) and lazy.array.token
    }
    return dataset.assign(found) if found else dataset


def read_once(dataset: xr.Dataset) -> xr.Dataset:
    """The same Dataset; what is read of it late stays in memory as long as it, not behind dask."""
    found = {
        name: variable.copy(deep=False, data=_remembered(lazy))
        for name, variable in dataset.variables.items()
        if isinstance(lazy := variable._data, LazyArray)
    }
    return dataset.assign(found) if found else dataset


def _remembered(lazy: LazyArray) -> Any:
    return indexing.MemoryCachedArray(lazy)  # type: ignore[no-untyped-call]


def cut(dataset: xr.Dataset, dim: str, *, share: int = 1) -> Iterator[xr.Dataset] | None:
    """Parts along a dimension, to be read one by one (`read_once`) in little memory.

    None where the dataset has no such dimension, is behind dask, or reads all of a file for a part.

    Parameters
    ----------
    share
        How many times smaller parts are than `BLOCK_BYTES`.
    """
    if dim not in dataset.dims or not all(map(_is_read_in_parts, dataset.variables.values())):
        return None
    dataset = for_a_pass(dataset)
    length = dataset.sizes[dim]
    most = max((array.nbytes for array in dataset.data_vars.values()), default=0)
    size = -(-length // max(1, min(length, -(-most * share // BLOCK_BYTES)))) or 1
    return (dataset.isel({dim: slice(at, at + size)}) for at in range(0, max(1, length), size))


def _is_read_in_parts(variable: xr.Variable) -> bool:
    lazy = variable._data
    if not isinstance(lazy, LazyArray):
        return not variable.chunks
    if not lazy.array.token:
        return False
    return variable.nbytes <= _LITTLE or getattr(lazy.array, "inner_axis", None) is not None


@contextmanager
def without_dask() -> Iterator[None]:
    """Let xarray ask within whether arrays are dask's without importing `dask.array` to know.

    That takes a quarter of a second, more than many answers. Where dask is loaded, nothing is
    different; what comes to load it within is recognised once the end is reached.
    """
    known: dict[Any, Any] = getattr(pycompat, "_cached_duck_array_modules", {})
    if "dask.array" in sys.modules or "dask" in known:
        yield
        return
    known["dask"] = _Absent
    try:
        yield
    finally:
        known.pop("dask", None)


class _Absent:
    """What xarray keeps of a module that is not installed: see its `DuckArrayModule`."""

    module = None
    type: tuple[type[Any], ...] = ()
    available = False


def _for_a_pass(lazy: LazyArray, mapped_bytes: int) -> Any:
    return LazyArray(lazy.array.for_a_pass(mapped_bytes), lazy.key)


class LazyPoints(indexing.ExplicitlyIndexedNDArrayMixin):
    """A pending pointwise selection: index arrays that broadcast together, and slices.

    `order` is a pending transpose of the result; None leaves it as read.
    """

    __slots__ = ("array", "key", "order")

    def __init__(
        self, array: StoreArray, key: tuple[Any, ...], order: tuple[int, ...] | None = None
    ) -> None:
        self.array, self.key, self.order = array, key, order

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the elements."""
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Points in front, then the sliced axes, unless transposed."""
        points = [k.shape for k in self.key if isinstance(k, np.ndarray)]
        sliced = [
            len(range(*k.indices(n)))
            for k, n in zip(self.key, self.array.shape, strict=True)
            if isinstance(k, slice)
        ]
        read = (*np.broadcast_shapes(*points), *sliced)
        return read if self.order is None else tuple(read[axis] for axis in self.order)

    def get_duck_array(self) -> np.ndarray:
        """Read now."""
        values = self.array.points(self.key)
        return values if self.order is None else values.transpose(self.order)

    def transpose(self, order: tuple[int, ...]) -> LazyPoints:
        """The same selection with its axes in another order, still unread."""
        before = self.order or tuple(range(self.ndim))
        return LazyPoints(self.array, self.key, tuple(before[axis] for axis in order))

    def _read(self) -> Any:
        return indexing.NumpyIndexingAdapter(self.get_duck_array())  # type: ignore[no-untyped-call]

    def _oindex_get(self, indexer: indexing.OuterIndexer) -> Any:
        return self._read().oindex[indexer]

    def _vindex_get(self, indexer: indexing.VectorizedIndexer) -> Any:
        return self._read().vindex[indexer]

    def __getitem__(self, indexer: indexing.ExplicitIndexer) -> Any:
        return self._read()[indexer]


def _composed(
    pending: tuple[Any, ...], key: tuple[Any, ...], shape: tuple[int, ...]
) -> tuple[Any, ...] | None:
    """`key` applied after `pending`, in terms of the array; None where xarray's way is needed."""
    rest = iter(key)
    composed: list[Any] = []
    for old, length in zip(pending, shape, strict=True):
        if isinstance(old, (int, np.integer)):
            composed.append(np.asarray(int(old)))
            continue
        new = next(rest)
        if isinstance(old, slice) and isinstance(new, slice):
            chosen = range(*old.indices(length))[new]
            stop = chosen.stop if chosen.stop >= 0 else None
            composed.append(slice(chosen.start, stop, chosen.step))
        elif isinstance(new, slice):
            return None
        else:
            known = np.arange(length)[old] if isinstance(old, slice) else old
            composed.append(known[np.asarray(new)])
    return tuple(composed)

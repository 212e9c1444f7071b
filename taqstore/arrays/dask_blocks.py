"""Arrays of a store behind dask, in blocks of whole shards."""

from __future__ import annotations

import hashlib
from math import prod
from typing import Any

import numpy as np

from taqstore.arrays.selection import Key
from taqstore.arrays.store_array import StoreArray

# Shards are merged into dask blocks of about this size: small blocks drown in scheduling
# (one layer per task takes 2-6 s for what a loop does in 0.4-0.8 s, measured: docs/notes.md).
_BLOCK_BYTES = 32 << 20


class _Source:
    """What dask slices: a StoreArray behind the few attributes `from_array` asks for."""

    def __init__(self, lazy: StoreArray) -> None:
        self.lazy, self.shape, self.dtype, self.ndim = lazy, lazy.shape, lazy.dtype, lazy.ndim

    def __getitem__(self, key: Key) -> np.ndarray:
        return self.lazy.read(key)


def as_dask(lazy: StoreArray, token: str) -> Any:
    """A dask array over `lazy`; `token` tells it from those of other stores."""
    import dask.array as da

    blocks = _block_shape(lazy.shape, lazy.shard_shape, lazy.dtype.itemsize)
    meta = np.empty((0,) * lazy.ndim, lazy.dtype)
    name = f"taqstore-{hashlib.sha256(token.encode()).hexdigest()[:12]}-{id(lazy):x}"
    return da.from_array(  # type: ignore[no-untyped-call]
        _Source(lazy), chunks=blocks, name=name, asarray=False, meta=meta
    )


def _block_shape(shape: tuple[int, ...], shard: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Whole shards, several along the first axes while a block stays small."""
    block = [max(1, min(s, n)) for s, n in zip(shard, shape, strict=True)]
    for axis in reversed(range(len(block))):
        room = _BLOCK_BYTES // max(1, prod(block) * itemsize)
        if room > 1:
            block[axis] = max(1, min(shape[axis], block[axis] * room))
    return tuple(block)

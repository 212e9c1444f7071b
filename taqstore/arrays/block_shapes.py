"""Shapes of the blocks in which arrays of a store are read: whole shards, several of small ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

# Shards are merged into dask blocks of about this size: small blocks drown in scheduling
# (one layer per task takes 2-6 s for what a loop does in 0.4-0.8 s, measured: docs/notes.md).
BLOCK_BYTES = 32 << 20
# Of mapped shards, which are read in part: with all batches of a few layers.
PART_BYTES = 8 << 20


def whole_shards(lazy: Any) -> tuple[int, ...]:
    """Shape of the blocks of an `ArrayReader`: whole shards."""
    return _block_shape(lazy.shape, lazy.shard_shape, lazy.dtype.itemsize)


def parts(lazy: Any) -> tuple[int, ...]:
    """Shape of the blocks: whole shards, or of mapped ones as many inner chunks as fit.

    A chunk of a mapped shard is read without the others, so that a block may have all batches of
    some layers, which most questions join, and not all layers of some batches.
    """
    shape, shard = lazy.shape, lazy.shard_shape
    axis = getattr(lazy, "inner_axis", None)  # several stores joined have none
    if axis is None:
        return whole_shards(lazy)
    inner = tuple(1 if at == axis else size for at, size in enumerate(shard))
    order = [*(at for at in reversed(range(len(shape))) if at < axis), axis]
    block = list(_block_shape(shape, inner, lazy.dtype.itemsize, order=order, most=PART_BYTES))
    # As many blocks as there must be, of about one size.
    block[axis] = -(-shape[axis] // -(-shape[axis] // block[axis])) if shape[axis] else 1
    return tuple(block)


def _block_shape(
    shape: tuple[int, ...],
    shard: tuple[int, ...],
    itemsize: int,
    *,
    order: Sequence[int] | None = None,
    most: int = BLOCK_BYTES,
) -> tuple[int, ...]:
    """Whole shards, several along the axes in turn while a block stays small."""
    block = [max(1, min(s, n)) for s, n in zip(shard, shape, strict=True)]
    for axis in reversed(range(len(block))) if order is None else order:
        room = most // max(1, prod(block) * itemsize)
        if room > 1:
            block[axis] = max(1, min(shape[axis], block[axis] * room))
    return tuple(block)

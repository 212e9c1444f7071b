"""Templates: what a group will hold, said in full before the first byte is written.

A `Template` names the dimensions, preallocated arrays and coordinates of one group; `writer`
creates it and fills it item by item. Nothing here touches a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, problem
from taqstore.names import VARIABLES

STRING = "string"
# Shards are what one write produces and one dask block reads. The choice, measured by
# `python -m benchmarks.layout` on 50 steps x 47 layers x 6144 channels of float32 (58 MB, warm):
#
#   layout                        one layer   one step   max of all    MB  files
#   chunk = layer, shard 32 MB      0.35 ms    0.45 ms      10.6 ms  57.8      2
#   the same with zstd              3.82 ms   56.04 ms      73.0 ms  52.0      2
#   chunk = layer, one shard        0.36 ms    0.39 ms       2.8 ms  57.8      1
#   chunk = step, shard 32 MB       0.26 ms    0.38 ms      10.4 ms  59.0      2
#   chunk = shard = step            0.80 ms    0.32 ms      10.1 ms  57.8     50
#   one chunk file per layer        0.31 ms    0.83 ms      11.7 ms  57.8     47
#
# Mapped, splitting by layer or by step is all one; by layer, a remote reader of one layer fetches
# one range. One shard reads fastest but is written by one thread and held whole by a remote writer;
# 32 MB keeps both small. zstd saves a tenth and costs a factor of ten.
SHARD_BYTES = 32 << 20


@dataclass(frozen=True)
class Array:
    """One preallocated array.

    Parameters
    ----------
    name, dims, dtype
        Variable name, dimension names, NumPy dtype string (little endian) or ``"string"``.
    split
        The one dimension that inner chunks split, one index each; every other dimension is whole
        inside a shard. None: the shard is one chunk.
    compress
        zstd before crc32c; such an array cannot be memory-mapped. For histograms.
    attrs
        Extra attributes, beside the documented ones of `names.VARIABLES`.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    split: str | None = None
    compress: bool = False
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fill(self) -> Any:
        """Value of what is not written: NaN, 0, False or the empty string."""
        if self.dtype == STRING:
            return ""
        kind = np.dtype(self.dtype).kind
        return np.nan if kind == "f" else False if kind == "b" else 0

    @property
    def documentation(self) -> dict[str, Any]:
        """Attributes stored with the array: long_name, units where there are any, description."""
        doc = VARIABLES[self.name]
        base = {"long_name": doc.long_name, "description": doc.description}
        return {**base, **({"units": doc.units} if doc.units else {}), **self.attrs}


@dataclass(frozen=True)
class Template:
    """One group: dims with sizes, data arrays, coordinates, and what an item is.

    Parameters
    ----------
    path, kind
        Where the group goes and which of the format's kinds it is (`latents`, `activations`, ...).
    sizes
        Size of every dimension.
    arrays
        Data arrays, preallocated and filled by writers.
    coords
        ``{name: (dims, values)}``, written at creation; a coordinate named like its dimension
        labels it.
    item_dims
        Dimensions of the `written` mask.
    item_size
        Extent of one item along `item_dims` (default 1 each): writers of different items never
        share a mask chunk or a shard.
    shard
        Extent of a shard along dimensions where it is not whole; item dims default to `item_size`.
    attrs
        JSON attributes of the group.
    """

    path: str
    kind: str
    sizes: Mapping[str, int]
    arrays: tuple[Array, ...]
    coords: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    item_dims: tuple[str, ...]
    item_size: Mapping[str, int] = field(default_factory=dict)
    shard: Mapping[str, int] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (dims, values) in self.coords.items():
            expected = tuple(self.sizes[d] for d in dims)
            if np.shape(values) != expected:
                raise LayoutError(
                    problem(
                        f"coordinate {name} does not fit its dims {dims} of {expected}",
                        where=self.path,
                        found=f"shape {np.shape(values)}",
                    )
                )

    def array(self, name: str) -> Array:
        """The data array called `name`; LayoutError if the template has none."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise LayoutError(problem(f"no variable {name!r} in this group", where=self.path))

    def shape(self, array: Array) -> tuple[int, ...]:
        """Full shape of a data array."""
        return tuple(self.sizes[d] for d in array.dims)

    def shard_shape(self, array: Array) -> tuple[int, ...]:
        """Shape of one shard of `array`: items and `shard` extents, everything else whole."""
        return tuple(max(1, min(self.sizes[d], self.shard_extent(d))) for d in array.dims)

    def shard_extent(self, dim: str) -> int:
        """Extent of a shard along `dim`."""
        if dim in self.shard:
            return self.shard[dim]
        return self.item_extent(dim) if dim in self.item_dims else self.sizes[dim]

    def item_extent(self, dim: str) -> int:
        """Extent of one item along an item dim."""
        return self.item_size.get(dim, 1)

    def chunk_shape(self, array: Array) -> tuple[int, ...]:
        """Shape of one inner chunk: the shard, cut to single indices along `split`."""
        shard = self.shard_shape(array)
        return tuple(1 if d == array.split else n for d, n in zip(array.dims, shard, strict=True))

    def mask_chunk(self) -> tuple[int, ...]:
        """Chunk shape of the `written` mask: exactly one item."""
        return tuple(min(self.sizes[d], self.item_extent(d)) or 1 for d in self.item_dims)


def rows_per_shard(row_bytes: int, rows: int, target: int = SHARD_BYTES) -> int:
    """How many of `rows` equal rows make a shard near `target` bytes, spread evenly.

    >>> rows_per_shard(1 << 20, 47, 32 << 20)
    24
    """
    if rows <= 0:
        return 1
    shards = max(1, -(-rows * row_bytes // target))
    return -(-rows // min(shards, rows))


def nbytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of an array of that shape and dtype."""
    return prod(shape) * np.dtype(dtype).itemsize

"""Records of items: which files an item owns, and what tells each from any other.

A record is written once all of an item's files are on disk, and is its flag. Written alone
(`items/commit`, a file an item) until the writer finishes; then closed into `items/record`, many to
a file, with the mask `written` beside them for readers who know nothing of records.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from crc32c import crc32c

from taqstore.layout.template import Template

_FILE = struct.Struct("<QI")
_SEAL = struct.Struct("<I")
Item = tuple[int, ...]
Shard = tuple[str, tuple[int, ...]]
Identity = tuple[int, int]
ABSENT: Identity = (0, 0)


@dataclass(frozen=True)
class _Owned:
    """The shards of one array that belong to an item."""

    name: str
    item_axes: tuple[int | None, ...]
    counts: tuple[int, ...]

    def shards(self, item: Item) -> Iterator[Shard]:
        origin = [
            0 if axis is None else item[axis] * n
            for axis, n in zip(self.item_axes, self.counts, strict=True)
        ]
        for offset in itertools.product(*map(range, self.counts)):
            yield self.name, tuple(o + d for o, d in zip(origin, offset, strict=True))

    def item_of(self, coords: Sequence[int], items: int) -> Item:
        found = [0] * items
        for axis, place, n in zip(self.item_axes, coords, self.counts, strict=True):
            if axis is not None:
                found[axis] = place // n
        return tuple(found)


@dataclass(frozen=True)
class ItemLayout:
    """Which shards of which arrays an item owns, in the order its record names them."""

    owned: tuple[_Owned, ...]
    item_size: tuple[int, ...]

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]],
        item_dims: Sequence[str],
        item_size: Sequence[int],
    ) -> ItemLayout:
        """The layout of a group.

        Parameters
        ----------
        arrays
            Data arrays by name: dimensions, shape, shape of a shard.
        item_dims, item_size
            Of the group; an item may be larger than the group is.
        """
        owned = []
        for name, (dims, shape, shard) in sorted(arrays.items()):
            axes = tuple(list(item_dims).index(d) if d in item_dims else None for d in dims)
            extents = [
                n if axis is None else min(n, item_size[axis]) if item_size[axis] > 1 else 1
                for axis, n in zip(axes, shape, strict=True)
            ]
            counts = tuple(max(1, -(-n // s)) for n, s in zip(extents, shard, strict=True))
            owned.append(_Owned(name, axes, counts))
        return cls(tuple(owned), tuple(item_size))

    @classmethod
    def of_template(cls, template: Template) -> ItemLayout:
        """The layout of the group that a template makes."""
        arrays = {
            a.name: (a.dims, template.shape(a), template.shard_shape(a)) for a in template.arrays
        }
        extents = [template.item_extent(d) for d in template.item_dims]
        return cls.of(arrays, template.item_dims, extents)

    @cached_property
    def files(self) -> int:
        """Shards of an item."""
        return sum(prod(one.counts) for one in self.owned)

    @property
    def flag_bytes(self) -> int:
        """Size of the flags in a record: a bit for every position inside the item."""
        return -(-prod(self.item_size) // 8)

    @cached_property
    def record_bytes(self) -> int:
        """Size of a record."""
        return self.flag_bytes + self.files * _FILE.size + _SEAL.size

    def shards(self, item: Item) -> list[Shard]:
        """Array and grid position of every shard of an item."""
        return [shard for one in self.owned for shard in one.shards(item)]

    def item_of(self, name: str, coords: Sequence[int]) -> Item:
        """The item that owns a shard."""
        one = next(one for one in self.owned if one.name == name)
        return one.item_of(coords, len(self.item_size))

    def pack(
        self, scope: str, item: Item, flags: np.ndarray, identities: Sequence[Identity]
    ) -> bytes:
        """The record of an item, bound to its place.

        Parameters
        ----------
        scope
            The store's uuid and the path of the group, joined by a slash.
        flags
            Bool of the item's shape: which positions inside it hold data; one at least.
        identities
            Of its shards, in the order of `shards`.
        """
        content = np.packbits(flags.reshape(-1)).tobytes()
        content += b"".join(_FILE.pack(*identity) for identity in identities)
        return content + _SEAL.pack(_bound(content, scope, item))

    def fits(self, record: bytes, scope: str, item: Item) -> bool:
        """Whether a record is this item's, whole."""
        content, seal = record[: -_SEAL.size], record[-_SEAL.size :]
        if len(record) != self.record_bytes or not any(record[: self.flag_bytes]):
            return False
        return bool(_SEAL.unpack(seal)[0] == _bound(content, scope, item))

    def flags(self, record: bytes) -> np.ndarray:
        """Which positions inside the item hold data."""
        bits = np.unpackbits(np.frombuffer(record[: self.flag_bytes], np.uint8))
        return bits[: prod(self.item_size)].reshape(self.item_size).astype(bool)

    def sizes(self, records: Sequence[bytes] | np.ndarray) -> np.ndarray:
        """Bytes of each file of an item, summed over records, uint64 (file,)."""
        raw = b"".join(records) if isinstance(records, list) else np.asarray(records).tobytes()
        rows = np.frombuffer(raw, np.uint8).reshape(-1, self.record_bytes)
        files = np.ascontiguousarray(rows[:, self.flag_bytes : -_SEAL.size])
        pairs = files.view(np.dtype([("size", "<u8"), ("fingerprint", "<u4")]))
        return np.asarray(pairs["size"].reshape(len(rows), self.files).sum(axis=0, dtype=np.uint64))

    def by_array(self, sizes: np.ndarray) -> dict[str, int]:
        """What `sizes` gives, summed over the files of each array."""
        ends = np.cumsum([0, *(prod(one.counts) for one in self.owned)])
        return {
            one.name: int(sizes[start:end].sum())
            for one, start, end in zip(self.owned, ends, ends[1:], strict=False)
        }

    def identities(self, record: bytes, item: Item) -> dict[Shard, Identity]:
        """Size and fingerprint of every shard of an item; `ABSENT` for one that is not there."""
        content = record[self.flag_bytes : -_SEAL.size]
        return dict(zip(self.shards(item), _FILE.iter_unpack(content), strict=True))


def _bound(content: bytes, scope: str, item: Item) -> int:
    place = f"{scope}/{'.'.join(map(str, item))}/".encode()
    return int(crc32c(content, crc32c(place)))


def mask_chunk(sizes: Sequence[int]) -> tuple[int, ...]:
    """Chunk of the closed mask: 2^20 items, so that a group opens with one read of it."""
    return _rows(sizes, 1)


def record_chunk(sizes: Sequence[int], record_bytes: int) -> tuple[int, ...]:
    """Chunk of the closed records: about 1 MB of them, whole along all but the first item dim."""
    return (*_rows(sizes, record_bytes), record_bytes)


def _rows(sizes: Sequence[int], item_bytes: int) -> tuple[int, ...]:
    rest = tuple(max(1, n) for n in sizes[1:])
    return max(1, (1 << 20) // (prod(rest) * item_bytes)), *rest

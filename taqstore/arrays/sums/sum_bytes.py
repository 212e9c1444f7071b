"""Counts of several items added up, as bytes of a file: a shard, then what it was made of.

The shard is laid out like those of the array, its chunks compressed with Blosc. A sum says which
files it was made of, so that one that is behind is seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np
from crc32c import crc32c

# Not where it is used: threads that load two modules of numcodecs at once get half of one.
from numcodecs.blosc import SHUFFLE, compress, decompress

from taqstore.layout.item_records import Identity
from taqstore.layout.shards import CRC_BYTES, Frames

_PART = struct.Struct("<QQI")
_END = struct.Struct("<II")
# Version, codec and flags, size of an element; then bytes before, of a block, and after.
_HEADER = struct.Struct("<4B3I")
_NARROW, _WIDE = np.dtype("<u4"), np.dtype("<i8")
PART_BYTES = _PART.size


def part_of(item: int, identity: Identity) -> bytes:
    """What tells one file that was added: its item, its size and its fingerprint."""
    return _PART.pack(item, *identity)


def item_of(part: bytes) -> int:
    """The item of such a file."""
    return int(_PART.unpack(part)[0])


def size_of(part: bytes) -> int:
    """The size of such a file."""
    return int(_PART.unpack(part)[1])


def sum_bytes(sums: Iterable[np.ndarray], count: int, parts: Iterable[bytes]) -> bytes:
    """A file of sums.

    Parameters
    ----------
    sums
        int64, a chunk each.
    count
        How many chunks.
    parts
        `part_of` of each file that was added, by item.
    """
    frames = Frames(map(_compressed, sums), capacity=count)
    shard, told = b"".join(frames), b"".join(parts)
    return shard + told + _END.pack(len(told), _seal(shard, count, told))


def cut(raw: memoryview, count: int) -> tuple[memoryview, bytes]:
    """The shard of a file of sums, and what it was made of.

    Raises
    ------
    ValueError
        It is damaged.
    """
    if len(raw) < _END.size:
        raise ValueError(f"{len(raw)} bytes")
    length, seal = _END.unpack(raw[-_END.size :])
    start = len(raw) - _END.size - length
    shard, told = raw[: max(0, start)], bytes(raw[max(0, start) : -_END.size])
    if start < 16 * count + CRC_BYTES or seal != _seal(shard, count, told):
        raise ValueError("sums whose checksum does not match")
    return shard, told


def decoded(content: memoryview, shape: Sequence[int]) -> np.ndarray:
    """One chunk, without its checksum: u4 or i8 of this shape.

    Raises
    ------
    ValueError, RuntimeError
        It is no such chunk.
    """
    if len(content) < _HEADER.size:
        raise ValueError(f"a chunk of {len(content)} bytes")
    *_, size, nbytes, _, told = _HEADER.unpack(content[: _HEADER.size])
    out = np.empty(shape, _NARROW if size == _NARROW.itemsize else _WIDE)
    if (size, nbytes, told) != (out.itemsize, out.nbytes, len(content)):
        raise ValueError(f"a chunk that tells {told} bytes of {nbytes}")
    decompress(content, out)
    return out


def _compressed(sums: np.ndarray) -> np.ndarray:
    fits = sums.min(initial=0) >= 0 and sums.max(initial=0) <= np.iinfo(_NARROW).max
    values = np.ascontiguousarray(sums, _NARROW if fits else _WIDE)
    # In one block: of several, Blosc would start threads of its own.
    return np.frombuffer(compress(values, b"lz4", 5, SHUFFLE, values.nbytes), np.uint8)


def _seal(shard: bytes | memoryview, count: int, told: bytes) -> int:
    """Of what the file was made of, and of the places and checksum of its chunks."""
    return int(crc32c(told, crc32c(shard[len(shard) - 16 * count - CRC_BYTES :])))

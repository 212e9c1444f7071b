"""Shard files on a local disk: written flushed and whole, read as memory maps.

A shard of the Zarr `sharding_indexed` codec is its inner chunks followed by an index of
(offset, length) pairs. When inner chunks are uncompressed and split one axis only, a shard is one
strided array on disk and can be mapped without a copy; every chunk still carries its crc32c. The
files are ordinary Zarr v3: zarr-python, tensorstore and zarrs read them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from taqstore.errors import StoreError, problem
from taqstore.place.plain_files import open_regular
from taqstore.place.whole_files import whole_file

CRC_BYTES = 4
REMEDY = "taqstore repair unflags its item, --resume writes it again"
"""What to do about a file that is not the one that was written."""
# What zarr's codecs raise on damaged bytes; anything else is a bug and keeps its traceback.
CODEC_ERRORS = (ValueError, RuntimeError, OSError, EOFError)
_ABSENT = 2**64 - 1


class Frames:
    """The pieces of one shard file, or of one unsharded chunk, made one at a time.

    Parameters
    ----------
    chunks
        Inner chunks in order, consumed as the pieces are.
    capacity
        How many inner chunks the shard has room for; those not given are marked absent. None: one
        unsharded chunk, without an index.
    encode
        Applied to the bytes of each chunk before its checksum; None: they stay as they are.
    """

    def __init__(
        self,
        chunks: Iterable[np.ndarray],
        *,
        capacity: int | None,
        encode: Callable[[memoryview], bytes] | None = None,
    ) -> None:
        self._chunks, self._capacity, self._encode = chunks, capacity, encode
        self._told = b""

    def __iter__(self) -> Iterator[memoryview | bytes]:
        offset, table, checksums = 0, [], []
        for chunk in self._chunks:
            data: memoryview | bytes = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
            data = self._encode(memoryview(data)) if self._encode else data
            yield data
            checksums.append(struct.pack("<I", crc32c(data)))
            yield checksums[-1]
            table.append((offset, len(data) + CRC_BYTES))
            offset += len(data) + CRC_BYTES
        index = b""
        if self._capacity is not None:
            table += [(_ABSENT, _ABSENT)] * (self._capacity - len(table))
            index = np.array(table, dtype="<u8").tobytes()
            yield index
            yield struct.pack("<I", crc32c(index))
        self._told = b"".join(checksums) + index

    @property
    def fingerprint(self) -> int:
        """What tells this file from any other, once all pieces are made: see `fingerprint_of`."""
        return int(crc32c(self._told))


def fingerprint_of(raw: Any, capacity: int | None) -> int:
    """crc32c of the checksums of a file's chunks and of its index: what tells it from others.

    The chunks themselves are not read, so it costs a page for each of them; a chunk that fits its
    checksum in a file that fits its fingerprint is what was written.

    Parameters
    ----------
    raw
        The file's bytes, or a map of them.
    capacity
        Inner chunks of a full shard; None for an unsharded chunk.

    Raises
    ------
    ValueError
        The file is too short, or its index leads outside it.
    """
    size, view = len(raw), np.frombuffer(raw, np.uint8)
    if capacity is None:
        if size < CRC_BYTES:
            raise ValueError(f"{size} bytes")
        return int(crc32c(view[size - CRC_BYTES :].tobytes()))
    start = size - 16 * capacity - CRC_BYTES
    if start < 0:
        raise ValueError(f"{size} bytes")
    index = view[start : size - CRC_BYTES].tobytes()
    table = np.frombuffer(index, "<u8").reshape(-1, 2)
    table = table[table[:, 0] != _ABSENT]
    ends = table.sum(axis=1)
    if (table > size).any() or (ends > size).any() or (table[:, 1] < CRC_BYTES).any():
        raise ValueError("an index that leads outside the file")
    places = (ends.astype(np.int64) - CRC_BYTES)[:, None] + np.arange(CRC_BYTES)
    return int(crc32c(view[places].tobytes() + index))


def chunk_places(raw: Any, capacity: int | None) -> list[tuple[int, int]]:
    """Offset and length of every chunk that is in a file; parameters as of `fingerprint_of`.

    Raises
    ------
    ValueError
        The index does not fit its checksum.
    """
    size = len(raw)
    if capacity is None:
        return [(0, size)]
    start = size - 16 * capacity - CRC_BYTES
    index = bytes(raw[start : size - CRC_BYTES])
    if crc32c(index) != struct.unpack("<I", raw[size - CRC_BYTES : size])[0]:
        raise ValueError("an index whose checksum does not match")
    table = np.frombuffer(index, "<u8").reshape(-1, 2).tolist()
    return [(offset, length) for offset, length in table if offset != _ABSENT]


def check_content(raw: Any, capacity: int | None) -> None:
    """Compare every chunk of a file with its checksum.

    Parameters
    ----------
    raw, capacity
        As of `fingerprint_of`, which is to be compared first.

    Raises
    ------
    ValueError
        A chunk is not what was written.
    """
    places = chunk_places(raw, capacity)
    with memoryview(raw) as whole:
        for number, (offset, length) in enumerate(places):
            end = offset + length - CRC_BYTES
            with whole[offset:end] as content:
                actual = crc32c(content)
            if actual != struct.unpack("<I", whole[end : end + CRC_BYTES])[0]:
                raise ValueError(f"checksum of chunk {number} does not match")


@dataclass(frozen=True)
class Framing:
    """How one shard file of an array is laid out.

    Parameters
    ----------
    shard_shape
        Shape of the whole shard (of the chunk, where the array is not sharded).
    dtype
        Little-endian dtype of the elements.
    axis
        The axis inner chunks split; None for an unsharded chunk.
    """

    shard_shape: tuple[int, ...]
    dtype: np.dtype
    axis: int | None

    @property
    def capacity(self) -> int:
        """Inner chunks in a full shard."""
        return 1 if self.axis is None else self.shard_shape[self.axis]

    @cached_property
    def chunk_bytes(self) -> int:
        """Payload bytes of one inner chunk, without its checksum."""
        return int(np.prod(self.shard_shape, dtype=np.int64)) * self.dtype.itemsize // self.capacity

    @property
    def stride(self) -> int:
        """Bytes from one inner chunk to the next."""
        return self.chunk_bytes + CRC_BYTES


class MappedShard:
    """One shard file, mapped where there is room; `view` is the shard as a read-only array.

    Raises
    ------
    StoreError
        The file is not laid out as the framing says: truncated, or its index is damaged.
    """

    def __init__(self, path: Path, framing: Framing) -> None:
        self.path, self.framing = path, framing
        with open(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._expected(1):
                raise self._damaged(f"{size} bytes")
            self._map = whole_file(file.fileno())
        self.present = self._read_index(size)
        self.checked = np.zeros(self.present, dtype=bool)
        self.view = self._as_array()

    def _expected(self, present: int) -> int:
        index = 0 if self.framing.axis is None else 16 * self.framing.capacity + CRC_BYTES
        return present * self.framing.stride + index

    def _read_index(self, size: int) -> int:
        framing = self.framing
        if framing.axis is None:
            if size != self._expected(1):
                raise self._damaged(f"{size} bytes, expected {self._expected(1)}")
            return 1
        start = size - 16 * framing.capacity - CRC_BYTES
        raw = self._map[start : size - CRC_BYTES]
        if crc32c(raw) != struct.unpack("<I", self._map[size - CRC_BYTES : size])[0]:
            raise self._damaged("an index whose checksum does not match")
        table = np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
        present = int((table[:, 0] != _ABSENT).sum())
        dense = np.arange(present, dtype=np.uint64) * np.uint64(framing.stride)
        if size != self._expected(present) or not (
            np.array_equal(table[:present, 0], dense)
            and (table[:present, 1] == framing.stride).all()
        ):
            raise self._damaged("chunks that are not in order", "rewrite it with taqstore")
        return present

    def _as_array(self) -> np.ndarray:
        framing = self.framing
        shape = list(framing.shard_shape)
        item = framing.dtype.itemsize
        if framing.axis is None:
            return np.frombuffer(
                self._map, framing.dtype, count=framing.chunk_bytes // item
            ).reshape(shape)
        inner = [1 if i == framing.axis else n for i, n in enumerate(shape)]
        strides = [int(s) * item for s in _c_strides(inner)]
        strides[framing.axis] = framing.stride
        shape[framing.axis] = self.present
        return np.ndarray(tuple(shape), framing.dtype, self._map, 0, tuple(strides))

    @property
    def identity(self) -> tuple[int, int]:
        """Size and fingerprint of the file."""
        capacity = None if self.framing.axis is None else self.framing.capacity
        return len(self._map), fingerprint_of(self._map, capacity)

    def holds(self, local: Sequence[int | slice], *, checked: bool) -> bool:
        """Whether the chunks of a selection are there, and compared where they are to be.

        Parameters
        ----------
        local
            A position or a slice from the front for each axis of the shard.
        """
        axis = self.framing.axis
        if axis is None:
            return not checked or bool(self.checked[0])
        chosen = local[axis]
        if isinstance(chosen, slice):
            there = chosen.stop <= self.present
            return there and (not checked or bool(self.checked[chosen].all()))
        return chosen < self.present and (not checked or bool(self.checked[chosen]))

    def check(self, chunks: np.ndarray | None = None) -> None:
        """Compare checksums of these inner chunks (all by default); each is checked once.

        Raises
        ------
        StoreError
            A chunk's bytes are not what was written.
        """
        for number in np.arange(self.present) if chunks is None else np.unique(chunks):
            if number < self.present and not self.checked[number]:
                self.check_one(int(number))
                self.checked[number] = True

    def check_one(self, number: int) -> None:
        """Compare the checksum of one inner chunk; raises as `check`."""
        start = number * self.framing.stride
        end = start + self.framing.chunk_bytes
        with memoryview(self._map) as whole, whole[start:end] as data:
            actual = crc32c(data)
        if actual != struct.unpack("<I", self._map[end : end + CRC_BYTES])[0]:
            raise self._damaged(f"checksum of chunk {number} does not match")

    def _damaged(self, found: str, remedy: str = REMEDY) -> StoreError:
        return StoreError(
            problem("damaged shard", where=str(self.path), found=found, remedy=remedy)
        )


def _c_strides(shape: list[int]) -> list[int]:
    """Strides in elements of a C-ordered array of that shape."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides

"""Shard files on a local disk: written flushed and whole, read as memory maps.

A shard of the Zarr `sharding_indexed` codec is its inner chunks followed by an index of
(offset, length) pairs. When inner chunks are uncompressed and split one axis only, a shard is one
strided array on disk and can be mapped without a copy; every chunk still carries its crc32c. The
files are ordinary Zarr v3: zarr-python, tensorstore and zarrs read them.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crc32c import crc32c

from taqstore.errors import StoreError, problem

CRC_BYTES = 4
_ABSENT = 2**64 - 1


def flush(path: Path) -> None:
    """Make a file's content, or the renames inside a folder, durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_chunk(path: Path, chunk: np.ndarray) -> int:
    """Write one unsharded chunk with its checksum; returns bytes written."""
    return _write_atomically(path, _framed([chunk], index=False))


def write_shard(path: Path, chunks: Iterable[np.ndarray], *, capacity: int) -> int:
    """Write one shard from its inner chunks in order; returns bytes written.

    Parameters
    ----------
    path
        The shard's file; replaced by rename once everything is on disk.
    chunks
        Inner chunks, all of one size, consumed one at a time.
    capacity
        How many inner chunks the shard has room for; those not given are marked absent.
    """
    return _write_atomically(path, _framed(chunks, index=True, capacity=capacity))


def _framed(
    chunks: Iterable[np.ndarray], *, index: bool, capacity: int = 0
) -> Iterable[memoryview | bytes]:
    offset, table = 0, []
    for chunk in chunks:
        data = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
        yield data
        yield struct.pack("<I", crc32c(data))
        table.append((offset, data.nbytes + CRC_BYTES))
        offset += data.nbytes + CRC_BYTES
    if index:
        table += [(_ABSENT, _ABSENT)] * (capacity - len(table))
        packed = np.array(table, dtype="<u8").tobytes()
        yield packed
        yield struct.pack("<I", crc32c(packed))


def _write_atomically(path: Path, pieces: Iterable[memoryview | bytes]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Zarr skips names with this suffix when listing: a killed writer leaves no false chunk.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.partial")
    total = 0
    try:
        with temporary.open("wb", buffering=0) as file:
            for piece in pieces:
                total += _write_all(file.fileno(), piece)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return total


def _write_all(fd: int, piece: memoryview | bytes) -> int:
    view = memoryview(piece)
    done = 0
    while done < view.nbytes:  # os.write may stop short of 2 GiB or at a signal
        done += os.write(fd, view[done:])
    return done


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

    @property
    def chunk_bytes(self) -> int:
        """Payload bytes of one inner chunk, without its checksum."""
        return int(np.prod(self.shard_shape, dtype=np.int64)) * self.dtype.itemsize // self.capacity

    @property
    def stride(self) -> int:
        """Bytes from one inner chunk to the next."""
        return self.chunk_bytes + CRC_BYTES


class MappedShard:
    """One shard file mapped read-only; `view` is the shard as an array, without a copy.

    Raises
    ------
    StoreError
        The file is not laid out as the framing says: truncated, or its index is damaged.
    """

    def __init__(self, path: Path, framing: Framing) -> None:
        self.path, self.framing = path, framing
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._expected(1):
                raise self._damaged(f"{size} bytes")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
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

    def _damaged(
        self, found: str, remedy: str = "restore it, or write the item again with --force"
    ) -> StoreError:
        return StoreError(
            problem("damaged shard", where=str(self.path), found=found, remedy=remedy)
        )


def _c_strides(shape: list[int]) -> list[int]:
    """Strides in elements of a C-ordered array of that shape."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides

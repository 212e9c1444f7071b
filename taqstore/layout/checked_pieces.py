"""A data file piece by piece, compared with what its item's record says of it on the way."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
from crc32c import crc32c

from taqstore.errors import StoreError, problem
from taqstore.layout.item_records import Identity
from taqstore.layout.shards import CRC_BYTES, REMEDY
from taqstore.place.backend import Backend

PIECE = 16 << 20
"""Bytes of a piece: what is in memory of a file of any size."""
_ABSENT = 2**64 - 1
_Fetch = Callable[[int, int], bytes]


def checked_pieces(
    backend: Backend, key: str, identity: Identity, capacity: int | None
) -> Iterator[bytes]:
    """The bytes of a data file in order, in pieces of a bounded size.

    What is wrong is found before the last piece is given, so that whoever writes them under another
    key leaves nothing there.

    Parameters
    ----------
    identity
        Size and fingerprint of the file, as its item's record tells.
    capacity
        Inner chunks of a full shard; None for an unsharded chunk.

    Raises
    ------
    StoreError
        The file is missing, is not the one that was written, or a chunk fails its checksum.
    """
    (size, fingerprint), where = identity, f"{backend.name} {key}"
    fetch = _fetching(backend, key, size, where)
    index = _index(fetch, size, capacity, where)
    check, body = _Check(where, size, index), size - len(index)
    for start in range(0, body, PIECE):
        piece = fetch(start, min(PIECE, body - start))
        check.feed(piece, start)
        if start + PIECE < body:
            yield piece
    if check.fingerprint() != fingerprint:
        raise damaged_file(where, "not the file that was written here")
    if body:
        yield piece
    if index:
        yield index


def damaged_file(where: str, found: str) -> StoreError:
    """The error of a data file that is not what was written."""
    return StoreError(problem("damaged shard", where=where, found=found, remedy=REMEDY))


def _fetching(backend: Backend, key: str, size: int, where: str) -> _Fetch:
    """A function that gives bytes of a file; a small one is read at once."""
    whole: bytes | None = None
    if size <= PIECE:
        whole = backend.read(key)
        if whole is None:
            raise damaged_file(where, "missing, though its item is flagged")
        if len(whole) != size:
            raise damaged_file(where, f"{len(whole)} bytes of {size}")

    def fetch(start: int, length: int) -> bytes:
        if whole is not None:
            return whole[start : start + length]
        raw = backend.read_range(key, start, length)
        if raw is None:
            raise damaged_file(where, "missing, though its item is flagged")
        if len(raw) != length:
            raise damaged_file(where, f"it ends at byte {start + len(raw)} of {size}")
        return raw

    return fetch


def _index(fetch: _Fetch, size: int, capacity: int | None, where: str) -> bytes:
    """The index of a shard with its checksum; empty where there is none."""
    length = CRC_BYTES if capacity is None else 16 * capacity + CRC_BYTES
    if size < length:
        raise damaged_file(where, f"{size} bytes")
    if capacity is None:
        return b""
    raw = fetch(size - length, length)
    if crc32c(raw[:-CRC_BYTES]) != struct.unpack("<I", raw[-CRC_BYTES:])[0]:
        raise damaged_file(where, "an index whose checksum does not match")
    return raw


class _Check:
    """Checksums of the chunks of one file, fed piece by piece."""

    def __init__(self, where: str, size: int, index: bytes) -> None:
        self._where, self._told = where, index[:-CRC_BYTES]
        table = np.array([[0, size]], np.uint64)
        if index:
            table = np.frombuffer(index[:-CRC_BYTES], "<u8").reshape(-1, 2)
            table = table[table[:, 0] != _ABSENT]
        body = size - len(index)
        ends = table.sum(axis=1)
        inside = (table <= body).all() and (ends <= body).all() and (table[:, 1] >= CRC_BYTES).all()
        # In the order of the file; whatever lies between chunks is nobody's.
        self._order = np.argsort(table[:, 0], kind="stable")
        apart = (ends[self._order][:-1] <= table[self._order][1:, 0]).all()
        if not (inside and apart):
            raise damaged_file(where, "an index that leads outside the file")
        self._places: list[tuple[int, int]] = [(int(o), int(n)) for o, n in table[self._order]]
        self._sums = [0] * len(self._places)
        self._tails = [b""] * len(self._places)
        self._next = 0

    def feed(self, piece: bytes, start: int) -> None:
        """Take the bytes from `start` on, which follow those fed before."""
        view, end = memoryview(piece), start + len(piece)
        number = self._next
        while number < len(self._places) and self._places[number][0] < end:
            offset, length = self._places[number]
            border, last = offset + length - CRC_BYTES, offset + length
            content = view[max(offset, start) - start : max(0, min(border, end) - start)]
            self._sums[number] = crc32c(content, self._sums[number])
            tail = view[max(0, max(border, start) - start) : max(0, min(last, end) - start)]
            self._tails[number] += bytes(tail)
            if last <= end:
                self._compare(number)
                self._next = number + 1
            number += 1

    def _compare(self, number: int) -> None:
        if self._sums[number] != struct.unpack("<I", self._tails[number])[0]:
            raise damaged_file(
                self._where, f"checksum of chunk {int(self._order[number])} does not match"
            )

    def fingerprint(self) -> int:
        """What tells the file from any other, once all was fed."""
        tails = dict(zip(self._order.tolist(), self._tails, strict=True))
        checksums = b"".join(tails[number] for number in sorted(tails))
        return int(crc32c(checksums + self._told))

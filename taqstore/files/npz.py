"""Arrays of npz files, read fast and without trusting them.

The zip directory is parsed once; a member is one `pread`, one inflation bounded by what the
directory promises, and a CRC-32 check. Nothing is ever unpickled. Safe to share between threads.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Iterator
from math import prod
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np
from isal import isal_zlib

from taqstore.errors import SourceError
from taqstore.files.npy import MAX_HEADER, Header, exactly, parse_header, refuse_objects
from taqstore.files.refusal import problem
from taqstore.files.zip_directory import AGAIN, DEFLATED, SLACK, Member, read_directory

_log = logging.getLogger(__name__)

_LOCAL = struct.Struct("<4s22xHH")
# Room for a name and the zip64 field that numpy always leaves in local headers: one read suffices.
_GUESS = 64
_PIECE = 1 << 20
_CRC = "damaged: its bytes do not give the recorded CRC-32"


def _may_fit(header: Header, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether an array may be one of this dtype and shape, judged by its header."""
    single = prod(header.shape) == prod(shape) == 1 and max(len(header.shape), len(shape)) <= 1
    numbers = header.dtype.kind in "biuf" and dtype.kind in "biuf"
    if header.dtype.kind == dtype.kind == "f" and header.dtype.itemsize < dtype.itemsize:
        numbers = False  # what was rounded on the way does not become what it was
    return (header.shape == shape or single) and (header.dtype == dtype or numbers)


class NpzFile:
    """One npz file.

    Inside ``with file:`` the descriptor stays open (nested and shared use is fine); outside, every
    read opens the file for itself, so any number of instances may exist.

    Parameters
    ----------
    path
        The file; its directory is read now.

    Raises
    ------
    SourceError
        Missing, truncated, half-written, no zip, or a member that is encrypted, of an unknown
        compression, listed twice, larger than its compressed bytes can give, or oddly named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._users = 0
        self._fd = -1
        self.nbytes, self._members = read_directory(path)

    def _fail(self, name: str, what: str, *, found: str = "", remedy: str = AGAIN) -> NoReturn:
        raise SourceError(problem(what, where=self.where(name), found=found, remedy=remedy))

    def where(self, name: str = "") -> str:
        """File and key, as messages name them."""
        return f"{self.path}: {name}" if name else str(self.path)

    @property
    def names(self) -> tuple[str, ...]:
        """Keys, in file order."""
        return tuple(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def member(self, name: str) -> Member:
        """Directory entry of a key; SourceError if there is none."""
        try:
            return self._members[name]
        except KeyError:
            self._fail(name, "no such key", found=", ".join(self.names[:8]))

    def crc(self, name: str) -> tuple[int, int]:
        """CRC-32 and size of the array with its header: differing values mean differing arrays."""
        member = self.member(name)
        return member.crc, member.size

    def __enter__(self) -> NpzFile:
        with self._lock:
            if self._users == 0:
                try:
                    self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                except OSError as error:
                    self._fail("", "cannot be read", found=error.strerror or str(error))
                _log.debug("reading %s", self.path)
            self._users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.close(self._fd)

    def header(self, name: str) -> Header:
        """Header of a key, checked against the directory; only the beginning is inflated."""
        member = self.member(name)
        length = min(member.compressed, 2 * MAX_HEADER)
        with self:
            data: bytes | memoryview = self._payload(name, member, length)
        if member.method == DEFLATED:
            data = self._inflate(name, isal_zlib.decompressobj(-15), data, 2 * MAX_HEADER)
        return self._header(name, member, data)

    def _header(self, name: str, member: Member, data: bytes | memoryview) -> Header:
        header = parse_header(data, where=self.where(name))
        if header.nbytes != member.size and header.dtype.kind != "O":
            self._fail(name, f"header claims {header.nbytes} bytes", found=str(member.size))
        return header

    def read(
        self, name: str, *, dtype: np.dtype | None = None, shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Array of a key, read-only where it is as it lies in the file.

        With `dtype` and `shape`, other shapes are refused before a byte is inflated; one number may
        have one axis or none. Another dtype is cast where that is exact, floats never from fewer
        bits: these were rounded.

        Raises
        ------
        SourceError
            No such key, damaged bytes, pickled objects, another dtype or shape.
        """
        member = self.member(name)
        if dtype is not None and shape is not None:
            extra = member.size - dtype.itemsize * prod(shape)
            if not 0 < extra <= MAX_HEADER + SLACK:
                header = self.header(name)
                if not _may_fit(header, dtype, shape):
                    self._mismatch(name, header, dtype, shape)
        data = self.raw(name)
        header = self._header(name, member, data)
        refuse_objects(header.dtype, where=self.where(name))
        asked = header.dtype if dtype is None else dtype
        form = header.shape if shape is None else shape
        if not _may_fit(header, asked, form):
            self._mismatch(name, header, asked, form)
        values = header.array(memoryview(data)[header.offset :])
        cast = exactly(values, asked)
        if cast is None:
            what, remedy = f"holds numbers that {asked.name} does not", f"save it as {asked.name}"
            self._fail(name, what, found=header.dtype.name, remedy=remedy)
        return cast.reshape(form)

    def _mismatch(
        self, name: str, header: Header, dtype: np.dtype, shape: tuple[int, ...]
    ) -> NoReturn:
        self._fail(
            name,
            f"is not {dtype.name} {shape}",
            found=f"{header.dtype.name} {header.shape}",
            remedy="all files of a run must agree",
        )

    def raw(self, name: str) -> bytes | memoryview:
        """The whole `.npy` file behind a key: bounded, complete, its CRC-32 verified."""
        member = self.member(name)
        with self:
            data: bytes | memoryview = self._payload(name, member, member.compressed)
        if member.method == DEFLATED:
            # One byte more than promised, so that a stream which goes on is noticed.
            data = self._inflate(name, isal_zlib.decompressobj(-15), data, member.size + 1)
        if len(data) != member.size or isal_zlib.crc32(data) != member.crc:
            self._fail(name, _CRC)
        return data

    def _payload(self, name: str, member: Member, length: int) -> memoryview:
        """First `length` compressed bytes of a member; the descriptor must be open."""
        data = self._pread(_LOCAL.size + len(name) + _GUESS + length, member.offset)
        if len(data) < _LOCAL.size:
            self._fail(name, "truncated")
        magic, name_length, extra_length = _LOCAL.unpack_from(data)
        if magic != b"PK\x03\x04":
            self._fail(name, "directory points to something else")
        start = _LOCAL.size + name_length + extra_length
        if start + length > len(data):
            data = self._pread(start + length, member.offset)
        if start + length > len(data):
            self._fail(name, "truncated")
        return memoryview(data)[start : start + length]

    def _pread(self, length: int, offset: int) -> bytes:
        """Read `length` bytes, fewer only at the end of the file (a call gives at most 2 GiB)."""
        data = b""
        try:
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    break
                data = data + more if data else more
        except OSError as error:
            self._fail("", "cannot be read", found=error.strerror or str(error))
        return data

    def _inflate(
        self, name: str, stream: isal_zlib.Decompress, data: bytes | memoryview, limit: int
    ) -> bytes:
        try:
            inflated: bytes = stream.decompress(data, limit)
        except isal_zlib.IsalError:  # type: ignore[misc]  # the stub says it is no class
            self._fail(name, "damaged: its deflate stream is not readable")
        return inflated

    def same(self, name: str, other: NpzFile, other_name: str) -> bool:
        """True if two arrays are equal byte for byte, headers included.

        Equal compressed streams prove it; only where they differ is anything inflated.
        """
        a, b = self.member(name), other.member(other_name)
        if (a.crc, a.size) != (b.crc, b.size):
            return False
        if a.method == b.method and a.compressed == b.compressed:
            with self, other:
                one = self._payload(name, a, a.compressed)
                two = other._payload(other_name, b, b.compressed)
            # Memoryviews compare item by item; NumPy compares at memory speed.
            if np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(two, np.uint8)):
                return True
        return self.raw(name) == other.raw(other_name)

    def rows(self, name: str, count: int) -> Iterator[np.ndarray]:
        """Consecutive blocks of `count` rows (first axis) in bounded memory; the CRC comes last."""
        header = self.header(name)
        refuse_objects(header.dtype, where=self.where(name))
        if header.fortran:  # its rows lie all over the file
            whole = self.read(name)
            yield from (whole[i : i + count] for i in range(0, len(whole), count))
            return
        block = count * header.dtype.itemsize * prod(header.shape[1:])
        buffer = bytearray()
        skip = header.offset
        for piece in self._pieces(name):
            buffer += piece[skip:]
            skip = max(0, skip - len(piece))
            while block and len(buffer) >= block:
                yield self._block(buffer[:block], header)
                del buffer[:block]
        if buffer:
            yield self._block(buffer, header)

    @staticmethod
    def _block(data: bytearray, header: Header) -> np.ndarray:
        return header.array(bytes(data), shape=(-1, *header.shape[1:]))

    def _pieces(self, name: str) -> Iterator[bytes]:
        """The `.npy` file behind a key in pieces of bounded size."""
        member = self.member(name)
        stream = isal_zlib.decompressobj(-15) if member.method == DEFLATED else None
        crc = size = 0
        with self:
            for data in self._compressed(name, member):
                for piece in self._inflated(name, stream, data) if stream else (data,):
                    crc, size = isal_zlib.crc32(piece, crc), size + len(piece)
                    if size > member.size:
                        self._fail(name, _CRC)
                    yield piece
        if size != member.size or crc != member.crc:
            self._fail(name, _CRC)

    def _compressed(self, name: str, member: Member) -> Iterator[bytes]:
        head = self._pread(_LOCAL.size, member.offset)
        if len(head) < _LOCAL.size:
            self._fail(name, "truncated")
        start = member.offset + _LOCAL.size + sum(_LOCAL.unpack(head)[1:])
        for at in range(0, member.compressed, _PIECE):
            yield self._pread(min(_PIECE, member.compressed - at), start + at)
        yield b""

    def _inflated(self, name: str, stream: isal_zlib.Decompress, data: bytes) -> Iterator[bytes]:
        """Output of one compressed piece; of the empty last one, what the inflater still holds."""
        if not data:
            yield stream.flush()
        while data:
            yield self._inflate(name, stream, data, 4 * _PIECE)
            data = stream.unconsumed_tail

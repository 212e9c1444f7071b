"""The `.npy` header, read without trusting it; arrays of `.npy` files."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem

MAGIC = b"\x93NUMPY"
# NumPy refuses longer headers too: a plain array's header is about a hundred bytes.
MAX_HEADER = 10_000
_PREFIX = 12
_KINDS = frozenset("biufcSUO")
_KEYS = {"descr", "fortran_order", "shape"}


@dataclass(frozen=True)
class Header:
    """What a `.npy` header says: dtype, shape, and how many bytes lie before its data.

    Parameters
    ----------
    dtype
        In the byte order of this machine; `stored` has the file's.
    fortran
        Whether the first axis runs fastest.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    stored: np.dtype
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of header and data together; what the file or member must hold."""
        return self.offset + self.dtype.itemsize * prod(self.shape)

    def array(
        self, data: bytes | memoryview, *, shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """The array in these bytes, in this machine's byte order and C's order of axes.

        `shape` is that of a part: whole rows of an array in C's order.
        """
        values = np.frombuffer(data, self.stored)
        values = values.reshape(shape or self.shape, order="F" if self.fortran else "C")
        return np.ascontiguousarray(values.astype(self.dtype, copy=False)).reshape(values.shape)


def exactly(values: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The same numbers in another dtype; None where it does not hold all of them exactly."""
    if values.dtype == dtype:
        return values
    if values.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        return None
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
        back = cast.astype(values.dtype)
    return cast if np.array_equal(back, values, equal_nan=values.dtype.kind == "f") else None


def parse_header(data: bytes | memoryview, *, where: str) -> Header:
    """Header at the start of `data`.

    Raises
    ------
    SourceError
        No `.npy` header, a structured dtype, or an absurd length.
    """
    head = bytes(data[:_PREFIX])
    width = {1: 2, 2: 4, 3: 4}.get(head[6] if len(head) == _PREFIX else 0)
    if head[:6] != MAGIC or width is None:
        raise SourceError(problem("not a .npy array", where=where, remedy="write the file again"))
    start = 8 + width
    length = int.from_bytes(head[8:start], "little")
    if length > MAX_HEADER or start + length > len(data):
        raise SourceError(problem(f".npy header claims {length} bytes", where=where))
    try:
        stored, shape, fortran = _fields(bytes(data[start : start + length]))
    except ValueError as error:
        raise SourceError(problem(str(error), where=where)) from None
    native = stored.newbyteorder("=")
    return Header(native, shape, start + length, stored, fortran and len(shape) > 1)


@lru_cache(maxsize=256)
def _fields(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Read a header's dict; cached, as thousands of members share a few headers."""
    try:
        fields = ast.literal_eval(text.decode("latin1").strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError(".npy header is not readable") from None
    if not isinstance(fields, dict) or set(fields) != _KEYS:
        raise ValueError(".npy header has other fields than descr, fortran_order, shape")
    if not isinstance(fields["fortran_order"], bool):
        raise ValueError("fortran_order is neither True nor False")
    return _dtype(fields["descr"]), _shape(fields["shape"]), fields["fortran_order"]


def _dtype(descr: object) -> np.dtype:
    if not isinstance(descr, str):
        raise ValueError("structured dtypes are not accepted")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError):
        raise ValueError(f"unknown dtype {descr!r}") from None
    if dtype.kind not in _KINDS:
        raise ValueError(f"dtype {descr!r} is not accepted")
    return dtype


def _shape(shape: object) -> tuple[int, ...]:
    if isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape):
        return shape
    raise ValueError(f"shape {shape!r} is not a tuple of sizes")


def refuse_objects(dtype: np.dtype, *, where: str) -> None:
    """SourceError if the dtype holds pickled Python objects."""
    if dtype.kind == "O":
        raise SourceError(
            problem(
                "array holds pickled Python objects, which are never loaded",
                where=where,
                remedy="save it as numbers or as a plain string array",
            )
        )


def read_npy(path: Path) -> np.ndarray:
    """Array of a `.npy` file, its header checked against the file's size.

    Raises
    ------
    SourceError
        The file is missing, truncated, longer than its header says, or holds objects.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            header = parse_header(file.read(MAX_HEADER + _PREFIX), where=where)
            refuse_objects(header.dtype, where=where)
            if header.nbytes != size:
                what = f"header claims {header.nbytes} bytes, the file has {size}"
                raise SourceError(problem(what, where=where, remedy="write it again"))
            file.seek(header.offset)
            data = file.read()
    except OSError as error:
        raise SourceError(problem("cannot be read", where=where, found=str(error))) from error
    return header.array(data)

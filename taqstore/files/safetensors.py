"""Safetensors files: named tensors behind a JSON header, read without trusting it.

The format (github.com/huggingface/safetensors): eight bytes little-endian length of the header, a
JSON object ``{name: {dtype, shape, data_offsets}}`` with offsets from the end of the header, then
the bytes, without gaps.
"""

from __future__ import annotations

import json
import logging
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import SourceError, problem
from taqstore.files.refusal import what_it_is

_log = logging.getLogger(__name__)
# The limit of the reference implementation; SD3-Medium's header is 0.2 MB.
MAX_HEADER = 100_000_000
_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_DTYPES = {
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
# dtypes that NumPy lacks, as their bits: it would take them for integers without a name.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])
FLOAT8 = np.dtype([("float8_e4m3", "|u1")])
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}
_NAMES |= {BFLOAT16: "BF16", FLOAT8: "F8_E4M3"}
_CODES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class Later:
    """A tensor that is made when it is written, so that one is in memory at a time.

    Parameters
    ----------
    dtype, shape
        What `make` will give.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    fresh: Path, tensors: Mapping[str, np.ndarray | Later], **metadata: str
) -> None:
    """Write tensors in the order given.

    Parameters
    ----------
    tensors
        Of a dtype that the format has; bits of `BFLOAT16` and `FLOAT8` among them.
    metadata
        Texts of the header's `__metadata__`.
    """
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    end = 0
    for name, values in tensors.items():
        begin, end = end, end + values.nbytes
        dtype = _NAMES[_little(values.dtype)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start aligned
    with fresh.open("wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for values in tensors.values():
            made = values.make() if isinstance(values, Later) else values
            file.write(np.ascontiguousarray(made, _little(values.dtype)).tobytes())


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.names else dtype.newbyteorder("<")


class SafetensorsFile(Mapping[str, Later]):
    """The tensors of a file by name, each read when it is asked for, in the dtype it has.

    Those of bfloat16 and float8 are given as their bits, `BFLOAT16` and `FLOAT8`.

    Raises
    ------
    SourceError
        The file is damaged; on reading a tensor, it is of a dtype that is not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            header, self._start = _header(path, file.read(_LENGTH.size), file, size)
        self._entries = {name: entry for name, entry in header.items() if name != _METADATA}

    def __getitem__(self, name: str) -> Later:
        told, shape, begin, end = _place(self.path, name, self._entries[name])
        dtype = _CODES.get(told)
        if dtype is None:
            what = f"tensor {name!r} is of a dtype that is not known"
            raise SourceError(problem(what, where=str(self.path), found=told))

        def make() -> np.ndarray:
            with self.path.open("rb") as file:
                file.seek(self._start + begin)
                data = file.read(end - begin)
            _check_fits(self.path, name, fits=len(data) == end - begin == later.nbytes)
            return np.frombuffer(data, dtype).reshape(shape)

        later = Later(dtype, tuple(shape), make)
        _check_fits(self.path, name, fits=end - begin == later.nbytes)
        return later

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def read_safetensors(
    path: Path, *, wanted: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ``(name, values)`` one tensor at a time, mapped; bfloat16 widened to float32, exactly.

    Parameters
    ----------
    wanted
        Whether a tensor is needed, by its name; None: all are. Others may be of any dtype.

    Raises
    ------
    SourceError
        The file is damaged, or a tensor that is needed is of a dtype that NumPy does not have.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        header, start = _header(path, file.read(_LENGTH.size), file, size)
        entries = {
            name: entry
            for name, entry in header.items()
            if name != _METADATA and (wanted is None or wanted(name))
        }
        if size == start or not entries:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for name, entry in entries.items():
                yield name, _tensor(path, name, entry, data, start)


def tensor_names(path: Path) -> list[str]:
    """Names of all tensors, whatever they are.

    Raises
    ------
    SourceError
        The file is damaged.
    """
    return [name for name in _header_of(path) if name != _METADATA]


def read_metadata(path: Path) -> dict[str, str]:
    """Texts of a file's header; empty where it has none.

    Raises
    ------
    SourceError
        The file is damaged.
    """
    metadata = _header_of(path).get(_METADATA, {})
    if not isinstance(metadata, dict):
        raise SourceError(problem("the header's metadata are no JSON object", where=str(path)))
    return {str(name): str(text) for name, text in metadata.items()}


def _header_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _header(path, file.read(_LENGTH.size), file, size)[0]


def _header(path: Path, lead: bytes, file: Any, size: int) -> tuple[dict[str, Any], int]:
    _log.debug("reading %s, %d bytes", path, size)
    length = _LENGTH.unpack(lead)[0] if len(lead) == _LENGTH.size else 0
    if not 2 <= length <= min(MAX_HEADER, size - _LENGTH.size):
        found = what_it_is(path) or f"a header of {length} bytes in a file of {size}"
        raise SourceError(
            problem("no safetensors file, or truncated", where=str(path), found=found)
        )
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        what = "the header is no JSON"
        raise SourceError(problem(what, where=str(path), found=str(error))) from error
    if not isinstance(header, dict):
        raise SourceError(problem("the header is no JSON object", where=str(path)))
    return header, _LENGTH.size + length


def _place(path: Path, name: str, entry: Any) -> tuple[str, list[int], int, int]:
    """Dtype and shape, and where its bytes begin and end after the header."""
    try:
        dtype, shape = str(entry["dtype"]), [int(n) for n in entry["shape"]]
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(problem(f"bad entry of {name!r}", where=str(path))) from error
    _check_fits(path, name, fits=0 <= begin <= end and min(shape, default=0) >= 0)
    return dtype, shape, begin, end


def _check_fits(path: Path, name: str, *, fits: bool) -> None:
    if not fits:
        what = f"tensor {name!r} does not fit its place"
        raise SourceError(problem(what, where=str(path), remedy="download the file again"))


def _tensor(path: Path, name: str, entry: Any, data: mmap.mmap, start: int) -> np.ndarray:
    dtype, shape, begin, end = _place(path, name, entry)
    if dtype not in _DTYPES:
        found = f"tensor {name!r} is {dtype}"
        what, remedy = "a dtype NumPy does not have", "save this tensor as F32, F16 or BF16"
        raise SourceError(problem(what, where=str(path), found=found, remedy=remedy))
    code = np.dtype(_DTYPES[dtype])
    inside = end <= len(data) - start and end - begin == prod(shape) * code.itemsize
    _check_fits(path, name, fits=inside)
    try:
        raw = np.frombuffer(data[start + begin : start + end], code).reshape(shape)
    except (ValueError, OverflowError) as error:  # axes beyond what NumPy counts
        found = f"tensor {name!r} of {len(shape)} axes"
        raise SourceError(problem("no shape", where=str(path), found=found)) from error
    # bfloat16 is the upper half of a float32.
    return (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else raw

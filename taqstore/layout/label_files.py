"""Files of coordinates decoded at once: those of a group lie in memory, and there are many.

zarr decodes any of them, by a task of its event loop for each; here is what writers of the format
leave, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

import numpy as np
from crc32c import crc32c

from taqstore.layout.array_documents import STRING, shard_shape

_PLAIN = (["bytes", "crc32c"], ["bytes", "zstd", "crc32c"])
_TEXT = ["vlen-utf8", "crc32c"]


def decoded(
    document: Mapping[str, Any], file: Callable[[str], bytes | None]
) -> np.ndarray[Any, Any] | None:
    """Values of an array whose files are at hand; None where they are zarr's to decode.

    Parameters
    ----------
    document
        Of the array, as it is stored.
    file
        Content of a file by its key below the array, None where there is none.

    Returns
    -------
    Array of the document's shape and data type; object of str for texts. None for codecs that
    writers do not use here, and for files that are missing, damaged or of another length: zarr
    says what it makes of them.
    """
    names = [codec["name"] for codec in document["codecs"]]
    text = document["data_type"] == STRING
    encoding = document["chunk_key_encoding"]
    if names not in ([_TEXT] if text else _PLAIN) or encoding["name"] != "default":
        return None
    separator = (encoding.get("configuration") or {}).get("separator", "/")
    shape, chunk = tuple(document["shape"]), shard_shape(document)
    out = np.empty(shape, object if text else document["data_type"])
    for place, inside in _chunks(shape, chunk):
        raw = file(separator.join(["c", *map(str, place)]))
        part = None if raw is None else _chunk(raw, out.dtype, chunk, zstd="zstd" in names)
        if part is None:
            return None
        out[inside] = part[tuple(slice(0, s.stop - s.start) for s in inside)]
    return out


def _chunks(
    shape: tuple[int, ...], chunk: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Places of an array's chunks, and what each covers."""
    for place in product(*(range(-(-n // c)) for n, c in zip(shape, chunk, strict=True))):
        starts = [p * c for p, c in zip(place, chunk, strict=True)]
        ends = [min(n, start + c) for n, start, c in zip(shape, starts, chunk, strict=True)]
        yield place, tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))


def _chunk(
    raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], *, zstd: bool
) -> np.ndarray[Any, Any] | None:
    content, sum_of = raw[:-4], raw[-4:]
    if len(raw) < 4 or struct.pack("<I", crc32c(content)) != sum_of:
        return None
    if dtype.kind == "O":
        return _texts(content, shape)
    if not zstd:
        whole = len(content) == prod(shape) * dtype.itemsize
        return np.frombuffer(content, dtype).reshape(shape) if whole else None
    from numcodecs.zstd import Zstd

    found = np.empty(shape, dtype)
    try:
        Zstd().decode(content, found.view(np.uint8).reshape(-1))
    except (ValueError, RuntimeError):
        return None
    return found


def _texts(content: bytes, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    from numcodecs.vlen import VLenUTF8

    if len(content) < 4 or struct.unpack("<I", content[:4])[0] != prod(shape):
        return None  # before anything of that many texts is made
    try:
        found: np.ndarray[Any, Any] = VLenUTF8().decode(content)
    except (ValueError, RuntimeError):
        return None
    return found.reshape(shape)

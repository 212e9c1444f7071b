"""Files of coordinates: compared with what their array's document says before they are decoded.

A checksum says that a file is what was written, not that its writer meant well: a kilobyte of zstd
may become a terabyte, and the count in front of some strings is any number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

import numpy as np
from crc32c import crc32c
from numcodecs.vlen import VLenUTF8

from taqstore.errors import StoreError
from taqstore.layout.array_documents import (
    STRING,
    is_compressed,
    is_plain,
    itemsize,
    shard_shape,
)
from taqstore.layout.frames import LONGEST_HEADER, frame_size, inflated
from taqstore.metadata.sealed import Document, damaged

# Of all coordinates of a group together, decoded.
_MOST_BYTES = 1 << 27
_MOST_FILES = 1 << 16
MOST_STRING = 1 << 16
"""Characters of one label at most."""


def check_coordinates(
    documents: Mapping[str, Document], files: Mapping[str, bytes], where: str
) -> None:
    """Refuse coordinates that are larger than their files, or that are not what they claim.

    Parameters
    ----------
    documents
        Those of the coordinates, checked, by name.
    files
        Their content, by key below the group; others are passed over.

    Raises
    ------
    StoreError
        A file does not fit; it is named.
    """
    check_files(documents, where)
    room = _MOST_BYTES
    for key, raw in files.items():
        name = key.partition("/")[0]
        if name in documents and not key.endswith("zarr.json"):
            room -= _decoded_size(documents[name], raw, f"{where}/{key}", room)


def chunk_keys(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    """Keys of all files of an array, below its group."""
    grid = [-(-n // c) for n, c in zip(document["shape"], shard_shape(document), strict=True)]
    configuration = document["chunk_key_encoding"].get("configuration") or {}
    separator = configuration.get("separator", "/")
    for place in np.ndindex(*grid):
        yield f"{name}/{separator.join(('c', *map(str, place)))}"


def check_files(documents: Mapping[str, Document], where: str) -> None:
    """Refuse coordinates of more files, or bytes, than any have, by a StoreError."""
    for name, document in documents.items():
        pairs = zip(document["shape"], shard_shape(document), strict=True)
        if prod(-(-n // c) for n, c in pairs) > _MOST_FILES:
            raise _misfit(f"{where}/{name}", f"shape {document['shape']} in too many files")
    claimed = sum(prod(d["shape"]) * itemsize(d) for d in documents.values())
    if claimed > _MOST_BYTES:
        raise damaged(where, f"{claimed} bytes", "coordinates larger than any run has")


def decoded(
    path: str, document: Document, files: Mapping[str, bytes]
) -> np.ndarray[Any, Any] | None:
    """Values of a coordinate whose files are at hand; None where they are zarr's to decode.

    A group has many coordinates, and zarr takes a task of its event loop for each of their files.

    Parameters
    ----------
    path
        Of the array: what the keys of its files begin with.
    document
        Of the array, as it is stored.
    files
        Contents by key.

    Returns
    -------
    Array of the document's shape and data type; object of str for texts. None for codecs that
    writers do not use here, and for files that are missing or do not fit: zarr says what it makes
    of them.
    """
    if not is_plain(document):
        return None
    dtype = object if document["data_type"] == STRING else document["data_type"]
    out, shard = np.empty(tuple(document["shape"]), dtype), shard_shape(document)
    grid = (range(0, n, c) for n, c in zip(out.shape, shard, strict=True))
    for key, starts in zip(chunk_keys(path, document), product(*grid), strict=True):
        part = _values(document, files.get(key), key)
        if part is None:
            return None
        inside = tuple(slice(s, s + c) for s, c in zip(starts, shard, strict=True))
        whole = out[inside]
        whole[...] = part[tuple(map(slice, whole.shape))]
    return out


def _values(document: Document, raw: bytes | None, key: str) -> np.ndarray[Any, Any] | None:
    try:
        content = _content(document, raw or b"", key, _MOST_BYTES)
        text = document["data_type"] == STRING
        flat = VLenUTF8().decode(content) if text else np.frombuffer(content, document["data_type"])
    except (StoreError, ValueError):
        return None
    found: np.ndarray[Any, Any] = flat.reshape(shard_shape(document))
    return found


def _decoded_size(document: Document, raw: bytes, where: str, room: int) -> int:
    """Bytes that a file of a coordinate becomes; StoreError if it is not of its array."""
    content, expected = _compared(document, raw, where, room)
    if document["data_type"] == STRING:
        return expected + len(_inflated(document, content, where, room))
    # Numbers are inflated when they are asked for: what the frame claims bounds them until then.
    told = frame_size(content[:LONGEST_HEADER]) if is_compressed(document) else len(content)
    if told != expected:
        found = "no size" if told is None else f"{told} bytes"
        raise _misfit(where, f"{found} for {expected} bytes")
    return expected


def _content(document: Document, raw: bytes, where: str, room: int) -> bytes | memoryview:
    """What a file holds once it is inflated; StoreError if it is not of its array."""
    content, expected = _compared(document, raw, where, room)
    found = _inflated(document, content, where, room)
    if document["data_type"] != STRING and len(found) != expected:
        raise _misfit(where, f"{len(found)} bytes for {expected}")
    return found


def _compared(document: Document, raw: bytes, where: str, room: int) -> tuple[bytes, int]:
    """Content of a file as it lies there, its checksum compared, and the bytes of its places."""
    content = raw[:-4]
    if len(raw) < 4 or crc32c(content) != struct.unpack("<I", raw[-4:])[0]:
        raise _misfit(where, "its checksum does not match")
    expected = prod(shard_shape(document)) * itemsize(document)
    if expected > room:
        raise _misfit(where, f"chunks of {expected} bytes")
    return content, expected


def _inflated(document: Document, content: bytes, where: str, room: int) -> bytes | memoryview:
    text, places = document["data_type"] == STRING, prod(shard_shape(document))
    found: bytes | memoryview = content
    if is_compressed(document):
        try:
            found = inflated(content, room if text else places * itemsize(document))
        except ValueError as error:
            raise _misfit(where, str(error)) from error
    # Lengths are compared when it is decoded; a count that lies would be believed.
    if text and (len(found) < 4 or struct.unpack("<I", found[:4])[0] != places):
        raise _misfit(where, f"not {places} strings")
    return found


def _misfit(where: str, found: str) -> StoreError:
    return damaged(where, found, "a coordinate that does not fit its array")

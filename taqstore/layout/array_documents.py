"""What array documents of a store may say, and what they say: read without zarr and without trust.

Only Zarr v3 with the codecs of the format is opened; shapes are bounded before anything of their
size is made. A seal is no protection here: whoever makes a store can seal it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.metadata.sealed import Document, damaged
from taqstore.metadata.tree import Loaded
from taqstore.names import ITEMS, WRITTEN

STRING = "string"
_DTYPES = frozenset(
    {"bool", STRING, "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
# Of one array: 2^53 elements are 9 PB of bytes.
_MOST_ELEMENTS = 1 << 53
_MOST_DIMENSIONS = 16
_MOST_ARRAYS = 256
# What is decoded whole: of a compressed file, and of an inner chunk of an uncompressed one, which
# a file has to hold byte for byte.
_MOST_DECODED, _MOST_CHUNK = 1 << 28, 1 << 36
Arrays = dict[str, tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]]


def array_document(loaded: Loaded, name: str) -> Document:
    """The checked document of an array of a group."""
    document = loaded.node_document(name)
    if document is None:
        raise damaged(f"{loaded.path}/{name}", "missing")
    check_array(document, f"{loaded.path}/{name}")
    return document


def array_documents(loaded: Loaded) -> dict[str, Document]:
    """Every array of a group by its path below it, coordinates and flags included.

    Raises
    ------
    StoreError
        An array is not of the format, or they do not fit each other.
    """
    found = {}
    for path in loaded.record.paths:
        if (loaded.node_document(path) or {}).get("node_type") == "array":
            found[path] = array_document(loaded, path)
    if WRITTEN not in found:
        raise damaged(f"{loaded.path}/{WRITTEN}", "missing")
    check_together(found, loaded.path)
    return found


def data_arrays(loaded: Loaded, documents: Mapping[str, Document] | None = None) -> Arrays:
    """Dimensions, shape and shard shape of every array that holds data of items, by name.

    Parameters
    ----------
    documents
        What `array_documents` found, where it was asked already.

    Raises
    ------
    StoreError
        An array is not of the format, or they do not fit each other.
    """
    return {
        path: (dimensions(document), tuple(document["shape"]), shard_shape(document))
        for path, document in (documents or array_documents(loaded)).items()
        if not path.startswith(f"{ITEMS}/")
        and path != WRITTEN
        and not is_coordinate(loaded.document, path, document)
    }


def is_coordinate(group: Mapping[str, Any], name: str, document: Mapping[str, Any]) -> bool:
    """Whether an array of a group labels its dimensions; `written` does as well."""
    listed = str(group["attributes"].get("coordinates", "")).split()
    return name in listed or dimensions(document) == (name,)


def dimensions(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of an array's dimensions."""
    return tuple(document["dimension_names"])


def shard_shape(document: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of what one file of an array holds."""
    return tuple(document["chunk_grid"]["configuration"]["chunk_shape"])


def capacity_of(document: Mapping[str, Any]) -> int | None:
    """Inner chunks of a full shard; None where a file is one chunk."""
    inner = _inner_shape(document)
    if inner is None:
        return None
    return int(prod(s // c for s, c in zip(shard_shape(document), inner, strict=True)))


def is_compressed(document: Mapping[str, Any]) -> bool:
    """Whether an array's chunks are."""
    return "zstd" in _names(_chain(document))


def is_plain(document: Mapping[str, Any]) -> bool:
    """Whether a file of an array is one chunk, in codecs of the format."""
    sharded = document["codecs"][0]["name"] == "sharding_indexed"
    return not sharded and not _chain_complaint(document["codecs"], document["data_type"])


def compressed_bytes(document: Mapping[str, Any]) -> int | None:
    """What a chunk of a compressed array becomes; None where chunks are as they are."""
    if not is_compressed(document):
        return None
    return int(prod(_inner_shape(document) or shard_shape(document)) * itemsize(document))


def _inner_shape(document: Mapping[str, Any]) -> Sequence[int] | None:
    (first, *_) = document["codecs"]
    if first["name"] != "sharding_indexed":
        return None
    inner: Sequence[int] = first["configuration"]["chunk_shape"]
    return inner


def _chain(document: Mapping[str, Any]) -> Any:
    """Codecs of the chunks themselves."""
    (first, *_) = document["codecs"]
    sharded = first["name"] == "sharding_indexed"
    return first["configuration"]["codecs"] if sharded else document["codecs"]


def check_array(document: Mapping[str, Any], where: str) -> None:
    """Refuse an array that is not of the format, by a StoreError that says in what."""
    try:
        found = _complaint(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"no array document: {error!r}"
    if found:
        what = "an array that is not of this format"
        raise StoreError(problem(what, where=where, found=found, remedy="see schemas/README.md"))


def _complaint(document: Mapping[str, Any]) -> str:
    if document["zarr_format"] != 3 or document["node_type"] != "array":
        return f"Zarr v{document['zarr_format']} {document['node_type']}"
    if document.get("storage_transformers"):
        return "storage transformers"
    if document["data_type"] not in _DTYPES:
        return f"data type {document['data_type']!r}"
    encoding = document["chunk_key_encoding"]
    separator = (encoding.get("configuration") or {}).get("separator", "/")
    if encoding["name"] != "default" or separator not in ("/", "."):
        return f"chunk keys {encoding}"
    return _shape_complaint(document) or _codec_complaint(document) or _size_complaint(document)


def _shape_complaint(document: Mapping[str, Any]) -> str:
    shape, shard, names = document["shape"], shard_shape(document), document["dimension_names"]
    if document["chunk_grid"]["name"] != "regular":
        return f"chunk grid {document['chunk_grid']['name']!r}"
    if not len(shape) == len(shard) == len(names) <= _MOST_DIMENSIONS:
        return "shape, chunks and dimension names of different lengths"
    named = all(isinstance(n, str) and 0 < len(n) < 100 and n.isprintable() for n in names)
    if not named or len(set(names)) < len(names):
        return f"dimensions {names}"
    if not _are_sizes(shape, 0):
        return f"shape {shape}"
    return "" if _are_sizes(shard, 1) else f"chunks {list(shard)}"


def _are_sizes(sizes: Sequence[Any], least: int) -> bool:
    whole = all(type(n) is int and n >= least for n in sizes)
    return whole and prod(sizes) <= _MOST_ELEMENTS


def _codec_complaint(document: Mapping[str, Any]) -> str:
    codecs = document["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        inner = sharding["chunk_shape"]
        fits = len(inner) == len(shard_shape(document)) and _are_sizes(inner, 1)
        if not fits or any(s % c for s, c in zip(shard_shape(document), inner, strict=True)):
            return f"inner chunks {inner}"
        index = _names(sharding["index_codecs"])
        if len(codecs) > 1 or index != ("bytes", "crc32c"):
            return f"codecs {', '.join(_names(codecs) + index)}"
        if sharding.get("index_location", "end") != "end":
            return f"index location {sharding['index_location']!r}"
    return _chain_complaint(_chain(document), document["data_type"])


def _chain_complaint(codecs: Sequence[Any], dtype: str) -> str:
    names = _names(codecs)
    first = "vlen-utf8" if dtype == STRING else "bytes"
    if names not in ((first, "crc32c"), (first, "zstd", "crc32c")):
        return f"codecs {', '.join(names)}"
    for codec in codecs:
        configuration = codec.get("configuration") or {}
        if codec["name"] == "bytes" and configuration.get("endian", "little") != "little":
            return "bytes that are not little-endian"
    return ""


def _names(codecs: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(codec["name"]) for codec in codecs)


def _size_complaint(document: Mapping[str, Any]) -> str:
    decoded = prod(shard_shape(document)) * itemsize(document)
    if is_compressed(document) and decoded > _MOST_DECODED:
        return f"compressed files of {decoded} bytes"
    chunk = prod(_inner_shape(document) or shard_shape(document)) * itemsize(document)
    if chunk > _MOST_CHUNK or (capacity_of(document) or 1) > _MOST_DECODED // 16:
        return f"chunks of {chunk} bytes"
    return ""


def itemsize(document: Mapping[str, Any]) -> int:
    """Bytes of an element; of a string, those of its place in an array."""
    dtype = document["data_type"]
    return 8 if dtype == STRING else np.dtype(dtype).itemsize


def check_together(documents: Mapping[str, Document], where: str) -> None:
    """Refuse arrays of one group that do not fit each other, by a StoreError.

    Along the dims of the flags an array may be longer than they are: a growth that was cut short.
    """
    if len(documents) > _MOST_ARRAYS:
        raise _misfit(where, f"{len(documents)} arrays")
    flags = documents.get(WRITTEN)
    growing = dict(zip(dimensions(flags), flags["shape"], strict=True)) if flags else {}
    sizes: dict[str, int] = {}
    for name, document in documents.items():
        if name.startswith(f"{ITEMS}/"):
            continue
        for dim, size in zip(dimensions(document), document["shape"], strict=True):
            known = growing.get(dim, sizes.setdefault(dim, size))
            if size < known or (size > known and dim not in growing):
                raise _misfit(f"{where}/{name}", f"{size} along {dim}, elsewhere {known}")


def _misfit(where: str, found: str) -> StoreError:
    what, remedy = "arrays that do not fit each other", "see schemas/README.md"
    return StoreError(problem(what, where=where, found=found, remedy=remedy))

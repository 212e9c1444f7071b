"""Coordinates decoded at once are what zarr makes of their files; the rest is left to zarr."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr
from crc32c import crc32c
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from taqstore.layout.coordinate_files import decoded

TEXTS = ["mm0.img", "", "Ä ∂ 🜁", "a\0b", "x" * 300]


def stored(
    values: np.ndarray[Any, Any], chunks: tuple[int, ...], *, zstd: bool = False, dtype: Any = None
) -> dict[str, bytes]:
    """Files of an array as zarr writes them, by key."""
    memory: dict[str, Any] = {}
    sums: list[Any] = [*([ZstdCodec(level=3)] if zstd else []), Crc32cCodec()]
    array: Any = zarr.create_array(
        MemoryStore(memory),
        shape=values.shape,
        chunks=chunks,
        dtype=dtype or values.dtype,
        compressors=sums,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return {key: buffer.to_bytes() for key, buffer in memory.items()}


def read(files: dict[str, bytes]) -> np.ndarray[Any, Any] | None:
    return decoded("at", json.loads(files["zarr.json"]), below(files))


def below(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files by their keys in a store."""
    return {f"at/{key}": raw for key, raw in files.items()}


@pytest.mark.parametrize("zstd", [False, True], ids=["plain", "zstd"])
@pytest.mark.parametrize("kind", ["bool", "int8", "uint16", "int64", "float16", "float32", "f8"])
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((7,), (7,)), ((7,), (3,)), ((5, 4), (2, 3)), ((3,), (65536,)), ((1,), (1,))],
)
def test_numbers(kind: str, shape: tuple[int, ...], chunks: tuple[int, ...], zstd: bool) -> None:
    values = np.random.default_rng(3).integers(0, 90, shape).astype(kind)
    if values.dtype.kind == "f":
        values.flat[0] = np.nan
    found = read(stored(values, chunks, zstd=zstd))
    assert found is not None
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("chunks", [(5,), (2,), (16384,)])
def test_texts(chunks: tuple[int]) -> None:
    found = read(stored(np.array(TEXTS, object), chunks, dtype=str))
    assert found is not None
    assert found.tolist() == TEXTS


def test_an_empty_array_has_no_files() -> None:
    found = read(stored(np.empty(0, np.int64), (4,)))
    assert found is not None
    assert found.shape == (0,)


def summed(content: bytes) -> bytes:
    return content + struct.pack("<I", crc32c(content))


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda raw: None,
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[:-1],
    "a bit": lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
    "shorter, with its sum": lambda raw: summed(raw[:-5]),
    "longer, with its sum": lambda raw: summed(raw[:-4] + b"\0"),
    "nonsense, with its sum": lambda raw: summed(b"\xff" * (len(raw) - 4)),
}


# Whatever bytes are numbers, and what follows the last text is passed over, by zarr as well.
GOOD = {("nonsense, with its sum", "numbers"), ("longer, with its sum", "texts")}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in DAMAGES for k in ("numbers", "packed", "texts") if (n, k) not in GOOD],
)
def test_what_is_damaged_is_left_to_zarr(name: str, kind: str) -> None:
    values = np.array(TEXTS, object) if kind == "texts" else np.arange(1000, 1005)
    files = stored(values, (5,), zstd=kind == "packed", dtype=str if kind == "texts" else None)
    assert read(files) is not None
    changed = DAMAGES[name](files["c/0"])
    if changed is None:
        del files["c/0"]
    else:
        files["c/0"] = changed
    assert read(files) is None


def test_a_count_of_texts_that_was_made_up_allocates_nothing() -> None:
    files = stored(np.array(TEXTS, object), (5,), dtype=str)
    files["c/0"] = summed(struct.pack("<I", 2**32 - 1) + files["c/0"][4:-4])
    assert read(files) is None


def test_other_codecs_are_left_to_zarr() -> None:
    files = stored(np.arange(5), (5,))
    document = json.loads(files["zarr.json"])
    document["codecs"] = [document["codecs"][0]]
    assert decoded("at", document, below(files)) is None

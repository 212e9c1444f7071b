"""Small files that hold one chunk, compressed and checked: flags, records, copies."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from crc32c import crc32c

from taqstore.metadata.sealed import damaged


def packed(block: np.ndarray) -> bytes:
    """One chunk as zarr's codecs bytes, zstd, crc32c leave it."""
    from numcodecs.zstd import Zstd

    content = bytes(Zstd(level=3).encode(np.ascontiguousarray(block)))
    return content + struct.pack("<I", crc32c(content))


def unpacked(raw: bytes, dtype: Any, shape: Sequence[int], where: str) -> np.ndarray:
    """What `packed` made; StoreError if it is not of that shape."""
    from numcodecs.zstd import Zstd

    out = np.empty(tuple(shape), dtype)
    content = raw[:-4]
    if len(raw) < 4 or crc32c(content) != struct.unpack("<I", raw[-4:])[0]:
        raise damaged(where, "its checksum does not match")
    try:
        Zstd().decode(content, out.view(np.uint8).reshape(-1))
    except (ValueError, RuntimeError) as error:
        raise damaged(where, str(error)) from error
    return out

"""Frames of zstd that say how large they become: a kilobyte may claim a terabyte."""

from __future__ import annotations

from typing import Any

import numpy as np

# Not where it is used: threads that load two modules of numcodecs at once get half of one.
from numcodecs.zstd import Zstd

from taqstore.layout.shards import CRC_BYTES, chunk_places

_MAGIC = b"\x28\xb5\x2f\xfd"
LONGEST_HEADER = 18
"""Bytes in front of a frame that tell its size."""


def frame_size(content: bytes) -> int | None:
    """Content size in the header of a frame (RFC 8878, 3.1.1.1); None if it is not told."""
    if len(content) < 6 or content[:4] != _MAGIC:
        return None
    flags = content[4]
    single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    start = 5 + (not single) + dictionary
    told = content[start : start + length]
    if not length or len(told) < length:
        return None
    return int.from_bytes(told, "little") + (256 if length == 2 else 0)


def inflated(content: bytes, most: int) -> memoryview:
    """What one frame holds, if it says so in front and that is no more than `most` bytes.

    Raises
    ------
    ValueError
        It is larger, says nothing of its size, or is damaged.
    """
    size = frame_size(content[:LONGEST_HEADER])
    if size is None or size > most:
        told = "no size" if size is None else f"{size} bytes"
        raise ValueError(f"compressed: {told} where {most} are the most")
    out = np.empty(size, np.uint8)
    try:
        Zstd().decode(content, out)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return out.data.toreadonly()


def check_frames(raw: Any, capacity: int | None, chunk_bytes: int) -> None:
    """Compare what the compressed chunks of a file claim with what they have to hold.

    Parameters
    ----------
    raw, capacity
        As of `fingerprint_of`, which is to be called first.
    chunk_bytes
        Size of a chunk that is not compressed.

    Raises
    ------
    ValueError
        A chunk would become larger or smaller.
    """
    for start, length in chunk_places(raw, capacity):
        header = bytes(raw[start : start + min(LONGEST_HEADER, length - CRC_BYTES)])
        size = frame_size(header)
        if size != chunk_bytes:
            raise ValueError(f"a compressed chunk of {size} bytes where {chunk_bytes} belong")

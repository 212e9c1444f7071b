"""How inner chunks lie in the files of an array, and what they are decoded."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c

from taqstore.layout.frames import frame_size, inflated
from taqstore.layout.nodes import ArrayNode
from taqstore.layout.shards import CRC_BYTES, Framing

if TYPE_CHECKING:
    import zarr

_ABSENT = 2**64 - 1


def framing_of(array: zarr.Array[Any] | ArrayNode, *, compressed: bool = False) -> Framing | None:
    """The framing of an array's shard files, or None where they are laid out otherwise.

    Parameters
    ----------
    compressed
        Of chunks that are compressed, which cannot be mapped; of those that are not by default.
    """
    codecs = codecs_of(array)
    shard = array.shards or array.chunks
    axes = [i for i, (s, c) in enumerate(zip(shard, array.chunks, strict=True)) if s != c]
    if array.shards is not None:
        if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
            return None
        configuration: Any = codecs[0]["configuration"]
        plain_index = [c["name"] for c in configuration["index_codecs"]] == ["bytes", "crc32c"]
        if not plain_index or configuration.get("index_location", "end") != "end":
            return None
        codecs = configuration["codecs"]
        axes = axes or [shard.index(1) if 1 in shard else -1]
        if len(axes) > 1 or array.chunks[axes[0]] != 1:
            return None
    names = ["bytes", "zstd", "crc32c"] if compressed else ["bytes", "crc32c"]
    plain = [c["name"] for c in codecs] == names
    endian = (codecs[0].get("configuration") or {}).get("endian", "little") if plain else ""
    if not plain or endian != "little" or array.dtype.kind not in "biuf":
        return None
    return Framing(tuple(shard), array.dtype, axes[0] if array.shards is not None else None)


def codecs_of(array: zarr.Array[Any] | ArrayNode) -> list[Any]:
    """Codecs of an array's files, as its document has them."""
    if isinstance(array, ArrayNode):
        return array.codecs
    metadata: Any = array.metadata
    return [codec.to_dict() for codec in metadata.codecs]


def capacity_of(array: zarr.Array[Any] | ArrayNode) -> int | None:
    """Inner chunks of a full shard; None where a file is one chunk."""
    if array.shards is None:
        return None
    return math.prod(s // c for s, c in zip(array.shards, array.chunks, strict=True))


def is_compressed(array: zarr.Array[Any] | ArrayNode) -> bool:
    """Whether the chunks of an array are."""
    codecs = codecs_of(array)
    if codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    return "zstd" in {codec["name"] for codec in codecs}


@dataclass(frozen=True)
class InnerChunks:
    """Inner chunks that split one axis, one place each, or the one chunk that a file is.

    Parameters
    ----------
    framing
        How they lie.
    compressed
        Whether they are.
    """

    framing: Framing
    compressed: bool

    @classmethod
    def of(cls, array: zarr.Array[Any] | ArrayNode) -> InnerChunks | None:
        """Those of an array; None where its files are laid out otherwise."""
        compressed = is_compressed(array)
        framing = framing_of(array, compressed=compressed)
        return None if framing is None else cls(framing, compressed)

    @property
    def index_bytes(self) -> int:
        """Size of the index at the end of a file."""
        return 0 if self.framing.axis is None else 16 * self.framing.capacity + CRC_BYTES

    def table(self, index: bytes) -> np.ndarray:
        """Offset and length of each chunk, int64 (chunk, 2), -1 where there is none.

        Raises
        ------
        ValueError
            It is not an index of such a file, or not what was written.
        """
        raw = index[:-CRC_BYTES]
        if len(index) != self.index_bytes:
            raise ValueError(f"an index of {len(index)} bytes where {self.index_bytes} belong")
        if crc32c(raw) != struct.unpack("<I", index[-CRC_BYTES:])[0]:
            raise ValueError("an index whose checksum does not match")
        table = np.frombuffer(raw, "<u8").reshape(-1, 2)
        absent = table[:, 0] == _ABSENT
        if (table[~absent] > 1 << 62).any() or (table[~absent, 1] < CRC_BYTES).any():
            raise ValueError("an index that leads outside the file")
        return np.where(absent[:, None], -1, table.astype(np.int64))

    def decoded(self, raw: memoryview) -> np.ndarray:
        """One inner chunk.

        Raises
        ------
        ValueError
            It is not what was written, or becomes larger than a chunk is.
        """
        framing, content = self.framing, compared(raw)
        if self.compressed:
            content = inflated(bytes(content), framing.chunk_bytes)
        if len(content) != framing.chunk_bytes:
            raise ValueError(f"a chunk of {len(content)} bytes where {framing.chunk_bytes} belong")
        shape = [1 if i == framing.axis else n for i, n in enumerate(framing.shard_shape)]
        return np.frombuffer(content, framing.dtype).reshape(shape)

    def decode_into(self, raw: memoryview, out: np.ndarray) -> None:
        """One compressed inner chunk into an array of its size, in C order.

        Raises
        ------
        ValueError, RuntimeError
            As `decoded`.
        """
        from numcodecs.zstd import decompress

        content = compared(raw)
        if frame_size(bytes(content[:18])) != self.framing.chunk_bytes:
            raise ValueError(f"not a chunk of {self.framing.chunk_bytes} bytes")
        decompress(content, out.reshape(-1).view(np.uint8))


def compared(raw: memoryview) -> memoryview:
    """What a chunk holds, its checksum compared and cut off."""
    content = raw[:-CRC_BYTES]
    if len(raw) < CRC_BYTES or crc32c(content) != struct.unpack("<I", raw[-CRC_BYTES:])[0]:
        raise ValueError("a chunk whose checksum does not match")
    return content

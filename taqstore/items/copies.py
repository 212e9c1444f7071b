"""A second copy of a group's coordinates, from which `repair` puts a damaged one back.

`items/coordinates` holds the files of all coordinates as JSON, name to base64. It is written with
every change of them, as one of the files that come together, and read by `repair` alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from taqstore.errors import StoreError
from taqstore.layout.array_documents import array_document
from taqstore.layout.packed import packed, unpacked
from taqstore.metadata.staging import Staging
from taqstore.metadata.tree import Loaded
from taqstore.names import COPIES, ITEMS, WRITTEN
from taqstore.place.backend import Backend

# Bytes to a file: the copy of a usual group is one.
COPY_CHUNK = 1 << 18
# Coordinates are bounded by what they decode to; their copy cannot be much longer.
_MOST_CHUNKS = 1 << 10


def copy_coordinates(staging: Staging, path: str) -> None:
    """Stage a copy of the coordinates as they are staged; the last step of a change.

    A group that an older writer made has none yet: it gets one.
    """
    from zarr.codecs import Crc32cCodec, ZstdCodec

    files = staging.files(path)
    size, name = len(_text_of(files)), COPIES.partition("/")[2]
    group: Any = staging.root[f"{path}/{ITEMS}"]
    if name in group:
        group[name].resize((size,))
    else:
        group.create_array(
            name,
            shape=(size,),
            dtype="uint8",
            chunks=(COPY_CHUNK,),
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            fill_value=0,
            dimension_names=("copy_byte",),
            attributes={"description": "a second copy of the files of coordinates"},
        )
    staging.put(path, copy_files(files))


def _text_of(files: Mapping[str, bytes]) -> bytes:
    kept = {
        key: base64.b64encode(raw).decode()
        for key, raw in sorted(files.items())
        if not key.startswith((f"{ITEMS}/", f"{WRITTEN}/"))
    }
    return json.dumps(kept, separators=(",", ":")).encode()


def copied_files(backend: Backend, loaded: Loaded) -> dict[str, bytes]:
    """Files of coordinates as the copy has them, by key below the group; none if it is damaged.

    Each is to be compared with the record: the copy may be of a moment before or after.
    """
    try:
        (size,) = array_document(loaded, COPIES)["shape"]
        keys = [f"{COPIES}/c/{number}" for number in range(-(-size // COPY_CHUNK))]
        raws = [backend.read(f"{loaded.path}/{key}") for key in keys[:_MOST_CHUNKS]]
        parts = [
            unpacked(raw or b"", np.uint8, (COPY_CHUNK,), key)
            for key, raw in zip(keys, raws, strict=True)
        ]
        found = json.loads(b"".join(part.tobytes() for part in parts)[:size])
        return {key: base64.b64decode(value) for key, value in found.items()}
    except (StoreError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def copy_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a copy of these coordinates, by key below the group.

    Parameters
    ----------
    files
        Small files of the group by key below it; those of flags are passed over.
    """
    text, made = np.frombuffer(_text_of(files), np.uint8), {}
    for number, start in enumerate(range(0, len(text), COPY_CHUNK)):
        block = np.zeros(COPY_CHUNK, np.uint8)
        part = text[start : start + COPY_CHUNK]
        block[: len(part)] = part
        made[f"{COPIES}/c/{number}"] = packed(block)
    return made

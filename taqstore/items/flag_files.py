"""Flags of items that were committed alone: a file each, which holds the item's record."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from crc32c import crc32c

from taqstore.layout.item_records import Item, ItemLayout
from taqstore.layout.shards import CRC_BYTES
from taqstore.names import COMMIT, RECORD, WRITTEN
from taqstore.place.backend import Backend
from taqstore.place.remote.owners import MAGIC


def record_of_flag(raw: bytes, scope: str, layout: ItemLayout, item: Item) -> bytes | None:
    """The record in a flag's file; None if it is not this item's, whole."""
    framed = len(raw) > 4 and crc32c(raw[:-4]) == struct.unpack("<I", raw[-4:])[0]
    return raw[:-4] if framed and layout.fits(raw[:-4], scope, item) else None


def is_claim(raw: bytes) -> bool:
    """Whether a file in the place of a flag is a writer's claim: its item is not flagged yet."""
    return raw.startswith(MAGIC)


def flag_bytes(layout: ItemLayout) -> int:
    """Bytes of every flag of a group."""
    return layout.record_bytes + CRC_BYTES


def flag_key(item: Item) -> str:
    """Key of an item's flag, below its group."""
    return f"{COMMIT}/c.{'.'.join(map(str, item))}.0"


def item_of_flag(name: str, dims: int) -> Item | None:
    """The item that a file of `items/commit` is the flag of; None for a foreign file."""
    head, *numbers = name.split(".")
    if head != "c" or len(numbers) != dims + 1 or not all(n.isdecimal() for n in numbers):
        return None  # no flag: a foreign file
    *numbers, last = numbers
    return tuple(map(int, numbers)) if last == "0" else None


def flag_files(path: str, records: Mapping[Item, bytes]) -> dict[str, bytes]:
    """Records of items of a group, which are their flags, by key."""
    return {
        f"{path}/{flag_key(item)}": record + struct.pack("<I", crc32c(record))
        for item, record in records.items()
    }


def write_flag_files(backend: Backend, files: Mapping[str, bytes]) -> None:
    """Put flags, of one group or several; durable after the backend's flush.

    On a disk they are flushed together: each item's lock keeps others away.
    """
    if not backend.remote:
        backend.write_all(files)
        return
    for key, content in files.items():
        backend.put_flag(key, content)


def holds_flags(backend: Backend, path: str) -> bool:
    """Whether anything below a path was ever flagged, whatever its documents say."""
    places = (COMMIT, WRITTEN, RECORD)
    return any(
        name.startswith("c") for place in places for name in backend.names(f"{path}/{place}")
    )

"""Data files compared with what the records say of them, in parts that any process can look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from taqstore.errors import StoreError
from taqstore.layout.frames import check_frames
from taqstore.layout.item_records import ABSENT, Identity, Item, Shard
from taqstore.layout.shards import check_content, fingerprint_of
from taqstore.place.backend import Backend

Framing = tuple[int | None, int | None]
"""Inner chunks of a full shard, and what a compressed one becomes."""

PART_BYTES, PART_FILES = 64 << 20, 256
"""What a part is about: long enough that dealing it out is nothing beside it."""


@dataclass(frozen=True)
class Row:
    """One data file as a record knows it."""

    shard: Shard
    identity: Identity
    item: Item
    framing: Framing


@dataclass(frozen=True)
class ShardPart:
    """Some data files of one group."""

    path: str
    backend: Backend
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Compared:
    """What was found: bytes read, and of every damaged file its key, what, and its item."""

    path: str
    bytes: int
    damaged: tuple[tuple[str, str, Item], ...]


def parts_of(
    path: str,
    backend: Backend,
    owned: Iterable[tuple[Item, Mapping[Shard, Identity]]],
    framing: Mapping[str, Framing],
) -> Iterator[ShardPart]:
    """Files of items, in their order, in parts of about equal size.

    Parameters
    ----------
    owned
        What each item owns; taken as parts are asked for.
    framing
        By array.
    """
    rows: list[Row] = []
    size = 0
    for item, files in owned:
        for shard, identity in files.items():
            if identity == ABSENT:
                continue
            rows.append(Row(shard, identity, item, framing[shard[0]]))
            size += identity[0]
            if size >= PART_BYTES or len(rows) >= PART_FILES:
                yield ShardPart(path, backend, tuple(rows))
                rows, size = [], 0
    if rows:
        yield ShardPart(path, backend, tuple(rows))


def compared(part: ShardPart) -> Compared:
    """Read every file of a part and compare it, whole and frame by frame."""
    total, damaged = 0, []
    for row in part.rows:
        key = "/".join((row.shard[0], "c", *map(str, row.shard[1])))
        try:
            raw = part.backend.read(f"{part.path}/{key}")
        except StoreError as error:
            damaged.append((key, str(error).partition(";")[0], row.item))
            continue
        total += len(raw or b"")
        if what := _wrong(raw, row):
            damaged.append((key, what, row.item))
    return Compared(part.path, total, tuple(damaged))


def _wrong(raw: bytes | None, row: Row) -> str:
    """What is wrong with a file; nothing where it is what was written."""
    if raw is None:
        return "missing, though its item is flagged"
    capacity, chunk = row.framing
    try:
        found = (len(raw), fingerprint_of(raw, capacity))
        if found == row.identity:
            check_content(raw, capacity)
            if chunk is not None:
                check_frames(raw, capacity, chunk)
            return ""
        what = "not the file that was written here"
    except ValueError as error:
        what = f"damaged: {error}"
    if more := len(raw) - row.identity[0]:
        what = f"{what}, {abs(more)} bytes too {'long' if more > 0 else 'short'}"
    return what

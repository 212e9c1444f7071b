"""Which items of a group are whole, and what each of them owns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.items.claims import checked_layout
from taqstore.items.fresh import FreshRecords, listed_flags
from taqstore.items.lean import few_files
from taqstore.layout.item_records import Identity, Item, ItemLayout, Shard, mask_chunk, record_chunk
from taqstore.layout.packed import unpacked
from taqstore.metadata.root import copies_now
from taqstore.metadata.sealed import Document, checksum, damaged
from taqstore.metadata.tree import Loaded, every_file, is_as_before, load_group
from taqstore.names import RECORD, WRITTEN
from taqstore.place.backend import Backend

_TRIES = 5
# Decoded chunks of records that are kept, of about 1 MB each.
_CHUNKS_KEPT = 64
# Items whose files are told one after another: all that a dask block or a minibatch has.
_OWNED_KEPT = 64


@dataclass
class Items:
    """Flags and records of one group, as they lay on disk when they were read.

    Parameters
    ----------
    backend, loaded
        Where the group lies, and its checked documents.
    layout
        Which files an item owns.
    shape
        Of the mask.
    closed
        Mask of the items whose records are closed.
    fresh
        Records written alone, by item: all of them, or `FreshRecords` that are read when asked for.
    """

    backend: Backend
    loaded: Loaded
    layout: ItemLayout
    shape: tuple[int, ...]
    closed: np.ndarray
    fresh: Mapping[Item, bytes]
    _chunks: dict[Item, np.ndarray] = field(default_factory=dict)
    _owned: dict[Item, tuple[bytes, dict[Shard, Identity]]] = field(default_factory=dict)
    _seen_closed: set[Item] = field(default_factory=set)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker reads flags itself: tasks hold addresses, not data.
        return _read_again, (self.backend, self.loaded.path, checksum(self.loaded.document))

    @property
    def mask(self) -> np.ndarray:
        """True where there is data, over the item dims."""
        out = self.closed.copy()
        if prod(self.size) == 1:  # an item that has a record is flagged
            places = np.array(list(self.fresh), np.int64).reshape(-1, out.ndim)
            inside = (places < out.shape).all(axis=1)  # not of a growth that was cut short
            out[tuple(places[inside].T)] = True
            return out
        for item, record in self._every_fresh().items():
            self.put_flags(out, item, self.layout.flags(record))
        return out

    def lying_alone(self) -> Mapping[Item, bytes]:
        """Records that are written alone now, all read."""
        self.ahead(self.fresh)
        return _records_of(self.fresh)

    def _every_fresh(self) -> dict[Item, bytes]:
        """Records of items that were written alone when it was looked."""
        self.ahead(self.fresh)
        found = {item: self.record(item) for item in self.fresh}
        return {item: record for item, record in found.items() if record is not None}

    def ahead(self, items: Iterable[Item]) -> None:
        """Read the records of some items together, where they are not there yet."""
        if isinstance(self.fresh, FreshRecords):
            self.fresh.read(items)

    def put_flags(self, mask: np.ndarray, item: Item, flags: np.ndarray | bool) -> None:
        """Set what a record says of an item in a mask."""
        region = self.region(item)
        if isinstance(flags, np.ndarray):
            flags = flags[tuple(slice(0, n) for n in mask[region].shape)]
        mask[region] = flags

    def region(self, item: Item) -> tuple[slice, ...]:
        """Where an item lies in the mask."""
        return tuple(slice(i * n, (i + 1) * n) for i, n in zip(item, self.size, strict=True))

    @property
    def size(self) -> tuple[int, ...]:
        """Extent of one item along the item dims."""
        return self.loaded.record.item_size

    @property
    def grid(self) -> tuple[int, ...]:
        """How many items there are along each item dim."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.size, strict=True))

    def owned(self, item: Item) -> dict[Shard, Identity] | None:
        """Size and fingerprint of every file of an item; None where it is not flagged.

        Raises
        ------
        StoreError
            Its record is damaged.
        """
        record = self.record(item)
        if record is None:
            return None
        known = self._owned.get(item)
        if known is None or known[0] != record:
            known = self._owned[item] = record, self.layout.identities(record, item)
            for old in list(self._owned)[:-_OWNED_KEPT]:
                self._owned.pop(old, None)  # another thread may have been faster
        return known[1]

    def record(self, item: Item) -> bytes | None:
        """The record of an item; None where it is not flagged. Raises as `owned`."""
        if item in self.fresh:
            with suppress(KeyError):
                return self.fresh[item]
            if item not in self.fresh:
                return None
            self._look_at_closed()
        elif not self.closed[self.region(item)].any():
            return None
        found, known = self._closed_record(item), self._owned.get(item)
        if known is not None and known[0] == found:
            return found  # it was looked at when its files were told
        if not self.layout.fits(found, self.loaded.scope, item):
            raise _damaged_record(self.loaded.path, item)
        return found

    def stored_bytes(self) -> dict[str, int]:
        """Bytes of the data files of all flagged items, by array, as the records tell."""
        total = self.layout.sizes(list(self._every_fresh().values()))
        chunk = record_chunk(self.grid, self.layout.record_bytes)
        for number in np.ndindex(*(-(-n // c) for n, c in zip(self.grid, chunk, strict=False))):
            region = tuple(
                slice(i * c * s, (i + 1) * c * s)
                for i, c, s in zip(number, chunk, self.size, strict=False)
            )
            if self.closed[region].any():
                block = self._chunk(number)
                rows = block.reshape(-1, block.shape[-1])
                used = rows[:, : self.layout.flag_bytes].any(axis=1)
                total = total + self.layout.sizes(rows[used])
        return self.layout.by_array(total)

    def add_recorded(self) -> None:
        """Put into the closed mask what closed records tell that were read with the group."""
        chunk = record_chunk(self.grid, self.layout.record_bytes)
        shape = (*self.grid, self.layout.record_bytes)
        for key in self.loaded.record.keys:
            place = key.removeprefix(f"{RECORD}/c/")
            number = None if place == key else number_of(place, "/", shape, chunk)
            if number is None or self.loaded.file(key) is None:
                continue
            block = self._chunk(number[:-1])
            for inside in np.argwhere(block[..., : self.layout.flag_bytes].any(axis=-1)):
                item = tuple(int(n * c + i) for n, c, i in zip(number, chunk, inside, strict=False))
                record = block[tuple(inside)].tobytes()
                self.put_flags(self.closed, item, self.layout.flags(record))

    def _look_at_closed(self) -> None:
        """Read the group's documents anew: items were closed after it was opened."""
        gone = set(self.fresh.gone) if isinstance(self.fresh, FreshRecords) else set()
        if gone <= self._seen_closed:
            return
        self._chunks.clear()
        again = load_group(self.backend, self.loaded.path, copies=copies_now(self.backend))
        if again is not None:
            self.loaded = again
        self._seen_closed |= gone

    def _closed_record(self, item: Item) -> bytes:
        chunk = record_chunk(self.grid, self.layout.record_bytes)
        number = tuple(i // n for i, n in zip(item, chunk, strict=False))
        inside = tuple(i % n for i, n in zip(item, chunk, strict=False))
        block = self._chunks.get(number)
        return bytes((self._chunk(number) if block is None else block)[inside].tobytes())

    def _chunk(self, number: Item) -> np.ndarray:
        chunk = record_chunk(self.grid, self.layout.record_bytes)
        block = self._chunks.get(number)
        if block is None:
            key = f"{RECORD}/c/{'/'.join(map(str, number))}/0"
            raw = self._record_file(key)
            block = unpacked(raw, np.uint8, chunk, f"{self.loaded.path}/{key}")
            self._chunks[number] = block
            for old in list(self._chunks)[:-_CHUNKS_KEPT]:
                self._chunks.pop(old, None)  # another thread may have been faster
        return block

    def _record_file(self, key: str) -> bytes:
        """A file of closed records; where a writer has closed more since, by its new claim."""
        path, raw = self.loaded.path, self.loaded.file(key)
        if raw is not None:
            return raw  # read and compared with the group
        for _ in range(_TRIES):
            raw = self.backend.read(f"{path}/{key}")
            if raw is not None and self.loaded.record.fits_file(key, raw):
                return raw
            again = load_group(self.backend, path, copies=copies_now(self.backend))
            if again is None or again.record == self.loaded.record:
                break
            self.loaded = again
        found = "missing" if raw is None else "not what was written"
        raise damaged(f"{path}/{key}", found, "damaged records of items")


_KNOWN: dict[tuple[str, str, int], Items] = {}


def _read_again(backend: Backend, path: str, seal: int) -> Items:
    """The items of a group in another process, read once for all arrays and tasks."""
    key = backend.name, path, seal
    if key not in _KNOWN:
        found = read_group(backend, path, where=backend.name, lean=backend.remote)
        if found is None:
            raise damaged(f"{backend.name} {path}", "missing")
        _KNOWN.clear()
        _KNOWN[key] = found
    return _KNOWN[key]


def read_items(
    backend: Backend,
    loaded: Loaded,
    layout: ItemLayout,
    shape: Sequence[int],
    known: Mapping[Item, bytes] | None = None,
) -> tuple[Items, bool]:
    """Flags and records of a group, and whether one was closed while they were read.

    Parameters
    ----------
    known
        Records written alone that have been read before, and need not be again.

    Raises
    ------
    StoreError
        A flag is damaged, or there are more items than any run has.
    """
    closed = Items(backend, loaded, layout, tuple(shape), closed_mask(loaded, tuple(shape)), {})
    closed.add_recorded()
    if backend.remote and closed.closed.all():
        return closed, False  # nothing is left to be flagged alone: a listing would tell nothing
    names = listed_flags(backend, loaded, layout, len(shape))
    fresh = FreshRecords(backend, loaded, layout, names, known)
    # Far away each is a request: what is asked of an item is asked when that is read.
    whole = backend.remote or fresh.read(list(fresh))
    return replace(closed, fresh=fresh), not whole


def fresh_items(backend: Backend, loaded: Loaded) -> Items:
    """Items of a group that was made now: none is flagged."""
    layout, shape = checked_layout(loaded)
    return Items(backend, loaded, layout, shape, np.zeros(shape, bool), {})


def _records_of(fresh: Mapping[Item, bytes]) -> Mapping[Item, bytes]:
    """Records that have been read."""
    return fresh.records if isinstance(fresh, FreshRecords) else fresh


def _damaged_record(path: str, item: Item) -> StoreError:
    what = f"damaged record of item {', '.join(map(str, item))}"
    remedy = "taqstore repair unflags it, --resume writes it again"
    return StoreError(problem(what, where=path, remedy=remedy))


def closed_mask(loaded: Loaded, shape: tuple[int, ...]) -> np.ndarray:
    """The mask that stands in `written`, where that was read; StoreError if it cannot be read."""
    chunk = mask_chunk(shape)
    out = np.zeros(shape, bool)
    for key in loaded.record.keys:
        raw = loaded.file(key) if key.startswith(f"{WRITTEN}/") else None
        number = number_of(key.removeprefix(f"{WRITTEN}/c."), ".", shape, chunk)
        if raw is None or number is None:
            continue
        block = unpacked(raw, np.bool_, chunk, f"{loaded.path}/{key}")
        region = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(number, chunk, shape, strict=True)
        )
        out[region] = block[tuple(slice(0, max(0, r.stop - r.start)) for r in region)]
    return out


def number_of(text: str, separator: str, shape: Item, chunk: Item) -> Item | None:
    """Place of a chunk as the end of its key tells it; None if the array has no such chunk."""
    parts = text.split(separator)
    if len(parts) != len(shape) or not all(p.isdecimal() and len(p) < 20 for p in parts):
        return None
    number = tuple(map(int, parts))
    inside = (i * c < n for i, n, c in zip(number, shape, chunk, strict=True))
    return number if all(inside) else None


def read_group(
    backend: Backend,
    path: str,
    *,
    copies: Mapping[str, Document] | None = None,
    uuid: str | None = None,
    where: str = "",
    before: Items | None = None,
    lean: bool = False,
) -> Items | None:
    """A group with its flags; None if there is none.

    Parameters
    ----------
    copies, uuid
        As of `load_group`.
    before
        The same group read earlier: records that were known then are not read again, nor is
        anything else while the group's own document says the same.
    lean
        Read with few requests: coordinates from their copy, flags from records where those are
        small.

    Raises
    ------
    StoreError
        Something of it is not what was written.
    """
    for attempt in range(_TRIES):
        known_copies = copies if attempt == 0 else copies_now(backend)
        if before is not None and is_as_before(backend, before.loaded):
            loaded, layout, shape = before.loaded, before.layout, before.shape
        else:
            read = few_files if lean else every_file
            found = load_group(
                backend, path, copies=known_copies, uuid=uuid, where=where, read=read
            )
            if found is None:
                return None
            loaded, (layout, shape) = found, checked_layout(found)
        known = None if before is None else _records_of(before.fresh)
        items, vanished = read_items(backend, loaded, layout, shape, known)
        if not vanished:
            return items
    raise StoreError(problem("flags keep changing", where=f"{where} {path}", remedy="try again"))

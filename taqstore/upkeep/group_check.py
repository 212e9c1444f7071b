"""One group looked at whole: everything of it that is not what was written, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taqstore.errors import MissingError, NewerError, StoreError, TaqError
from taqstore.items.claims import checked_layout
from taqstore.items.closing import recorded_mask
from taqstore.items.flag_files import flag_key, is_claim, item_of_flag, record_of_flag
from taqstore.items.flags import Items, closed_mask
from taqstore.layout.array_documents import (
    array_document,
    capacity_of,
    compressed_bytes,
    data_arrays,
)
from taqstore.layout.item_records import ABSENT, Identity, Item, ItemLayout, Shard
from taqstore.layout.nodes import GroupNode
from taqstore.metadata.group_record import GroupRecord
from taqstore.metadata.root import KEY
from taqstore.metadata.sealed import (
    Document,
    check_seal,
    checksum,
    encoded,
    foreign,
    marker_of,
    parsed,
)
from taqstore.metadata.tree import Loaded, check_version
from taqstore.names import COMMIT, ITEMS, PROVENANCE, RECORD, parse_layer
from taqstore.place.backend import Backend
from taqstore.store.groups import dimension_names, read_coordinate
from taqstore.upkeep.shard_check import Compared, Framing, ShardPart, compared, parts_of


@dataclass(frozen=True)
class Finding:
    """One damaged thing.

    Parameters
    ----------
    where, what
        Where it is, and what is wrong with it.
    group, key, item
        The group, the file below the store's root and the item, as far as they are known.
    """

    where: str
    what: str
    group: str = ""
    key: str = ""
    item: Item | None = None


@dataclass
class GroupCheck:
    """What was found of one group.

    Parameters
    ----------
    path, backend
        The group, and where it lies.
    copies
        The root's copies of documents, empty where it has none: they are believed.
    uuid
        Of the store; None where that is not known.
    damage
        What is not as it was written.
    loaded, items
        The group as far as it is whole: with copies in place of damaged documents.
    arrays, chunks, size, unwritten, total
        Counts of what was looked at.
    """

    path: str
    backend: Backend
    copies: Mapping[str, Document]
    uuid: str | None = None
    damage: list[Finding] = field(default_factory=list)
    loaded: Loaded | None = None
    items: Items | None = None
    arrays: int = 0
    chunks: int = 0
    size: int = 0
    unwritten: int = 0
    total: int = 0
    gone: bool = False
    _framing: dict[str, Framing] = field(default_factory=dict)
    _unread: list[tuple[Item, str]] = field(default_factory=list)

    def run(self) -> GroupCheck:
        """Look at everything."""
        self.look()
        for part in self.parts():
            self.add(compared(part))
        return self.end()

    def look(self) -> GroupCheck:
        """Look at everything but the data files, which are in `parts`."""
        document = self._own_document()
        if document is None:
            return self
        try:
            record = GroupRecord.of(document, self.path)
            if stranger := record.stranger(self.path, self.uuid):
                self._found(KEY, stranger)
                return self
            content = {f"{self.path}/{KEY}": encoded(document)}
            content |= self._documents(record)
            content |= {
                key: raw
                for key, raw in self._files(record).items()
                if f"{_array_of(key)}/{KEY}" in content
            }
            self.loaded = Loaded(self.path, document, record, content)
            if any(f"{self.path}/{name}/{KEY}" not in content for name in record.paths):
                return self  # which files an item owns cannot be told without all arrays
            if self.path == PROVENANCE:
                return self  # has no items: its records are looked at one by one
            layout, shape = checked_layout(self.loaded)
            with foreign(self.path):
                self._coordinates(self.loaded)
            self._items(self.loaded, layout, shape)
        except StoreError as error:
            if str(error) not in {finding.what for finding in self.damage}:
                self._found("", str(error))
        return self

    def _found(self, key: str, what: str, item: Item | None = None, *, file: bool = True) -> None:
        """Something that is not as it was written: a file, or with `file` false an array."""
        where = f"{self.path}/{key}" if key else self.path
        whole = where if key and file else ""
        if item is not None:
            where = f"{where} (item {', '.join(map(str, item))})"
        self.damage.append(Finding(where, what, self.path, whole, item))

    def _own_document(self) -> Document | None:
        """The root's copy of the group's document; else the document itself, if it is whole."""
        key, copy = f"{self.path}/{KEY}", self.copies.get(self.path)
        document = None
        try:
            raw = self.backend.read(key)
            if raw is None and not self.backend.names(self.path):
                self.gone = True
                self._found("", "missing, though the root lists it")
                return None
            if raw is None:
                self._found(KEY, "missing")
            else:
                found = parsed(raw, key)
                check_version(found, self.path)
                check_seal(found, key)
                document = found
        except NewerError:
            raise
        except StoreError as error:
            self._found(KEY, _said(error))
        if copy is None or not marker_of(copy):
            return document
        if document is not None and document != copy:
            self._found(KEY, "not what was written")
        return dict(copy)

    def _documents(self, record: GroupRecord) -> dict[str, bytes]:
        content = {}
        for name in record.paths:
            key = f"{name}/{KEY}"
            copy = self.copies.get(f"{self.path}/{name}")
            document = self._member(key, name, record)
            if copy is not None and record.fits_document(name, checksum(copy)):
                if document is not None and document != copy:
                    self._found(key, "not what was written")
                document = dict(copy)
            if document is not None:
                content[f"{self.path}/{key}"] = encoded(document)
                self.arrays += document.get("node_type") == "array"
        return content

    def _member(self, key: str, name: str, record: GroupRecord) -> Document | None:
        try:
            raw = self.backend.read(f"{self.path}/{key}")
            if raw is None:
                self._found(key, "missing")
                return None
            document = parsed(raw, key)
        except StoreError as error:
            self._found(key, _said(error))
            return None
        if record.fits_document(name, checksum(document)):
            return document
        self._found(key, "not what was written")
        return None

    def _files(self, record: GroupRecord) -> dict[str, bytes]:
        content = {}
        for key in record.keys:
            try:
                raw = self.backend.read(f"{self.path}/{key}")
            except StoreError as error:
                self._found(key, _said(error))
                continue
            if raw is None and not record.expects(key):
                continue
            self.chunks += 1
            self.size += len(raw or b"")
            if raw is None:
                self._found(key, "missing")
            elif not record.fits_file(key, raw):
                self._found(key, "not what was written")
            elif not key.startswith(f"{ITEMS}/"):
                content[f"{self.path}/{key}"] = raw
        return content

    def _coordinates(self, loaded: Loaded) -> None:
        damaged = {finding.key.split("/c/")[0] for finding in self.damage}
        node = GroupNode(loaded, _nothing)
        for name, array in node.arrays():
            dims = dimension_names(array)
            if dims != (name,) or f"{self.path}/{name}" in damaged:
                continue
            try:
                values = read_coordinate(node, name)
            except TaqError as error:
                self._found(name, str(error), file=False)
                continue
            if name in ("step", "image", "batch", "layer"):
                self._labels(name, values)

    def _labels(self, name: str, values: np.ndarray) -> None:
        if len(set(values.tolist())) < len(values):
            self._found(name, "labels repeat", file=False)
        for value in dict.fromkeys(values.tolist()) if name == "layer" else ():
            try:
                parse_layer(str(value))
            except MissingError as error:
                self._found(name, str(error), file=False)

    def _items(self, loaded: Loaded, layout: ItemLayout, shape: tuple[int, ...]) -> None:
        arrays = data_arrays(loaded)
        fresh = dict(self._flags(loaded, layout, len(shape)))
        self.items = Items(self.backend, loaded, layout, shape, closed_mask(loaded, shape), fresh)
        if self.damage:  # `written` may be damaged: the records tell as much
            self.items.closed |= recorded_mask(self.items)
        mask = self.items.mask
        self.total, self.unwritten = int(mask.size), int(mask.size - mask.sum())
        documents = {name: array_document(loaded, name) for name in arrays}
        self._framing = {n: (capacity_of(d), compressed_bytes(d)) for n, d in documents.items()}

    def parts(self) -> Iterator[ShardPart]:
        """The data files of all flagged items, to be compared by anybody; `add` what that finds."""
        if self.items is not None:
            owned = self._owned(self.items)
            yield from parts_of(self.path, self.backend, owned, self._framing)

    def add(self, found: Compared) -> None:
        """Count a part that was compared."""
        self.size += found.bytes
        for key, what, item in found.damaged:
            self._found(key, what, item)

    def end(self) -> GroupCheck:
        """Name what was met while `parts` were made: last, whenever these were taken."""
        for item, what in self._unread:
            self._found(RECORD, what, item, file=False)
        return self

    def _flags(self, loaded: Loaded, layout: ItemLayout, dims: int) -> Iterator[tuple[Item, bytes]]:
        """Records of items that were committed alone; damaged ones are named and passed over."""
        for name in self.backend.names(f"{self.path}/{COMMIT}"):
            item = item_of_flag(name, dims)
            if item is None:
                continue
            try:
                raw = self.backend.read(f"{self.path}/{flag_key(item)}")
            except StoreError:
                raw = b""  # a pipe, a link
            if raw is None or is_claim(raw):
                continue  # closed by a writer since it was listed; or of one that is not done
            record = record_of_flag(raw, loaded.scope, layout, item)
            if record is None:
                self._found(flag_key(item), "damaged completion flag", item)
            else:
                yield item, record

    def _owned(self, items: Items) -> Iterator[tuple[Item, dict[Shard, Identity]]]:
        """Files of every flagged item; items whose records are damaged are remembered."""
        named = any(finding.key.startswith(f"{self.path}/{RECORD}/c") for finding in self.damage)
        for item in flagged_items(items):
            try:
                owned = items.owned(item) or {}
            except StoreError as error:
                self._unread += [] if named else [(item, _said(error))]
                continue
            self.chunks += sum(identity != ABSENT for identity in owned.values())
            yield item, owned


def _nothing() -> Any:
    """For zarr: a store of nothing but what was read."""
    from zarr.storage import MemoryStore

    return MemoryStore(read_only=True)


def flagged_items(items: Items) -> list[Item]:
    """Numbers of all items that are flagged, in order."""
    places = np.argwhere(items.mask)
    numbers = places // np.array(items.size, np.int64)
    return [tuple(map(int, row)) for row in np.unique(numbers, axis=0)]


def _array_of(key: str) -> str:
    return key.partition("/c/")[0].partition("/c.")[0]


def _said(error: StoreError) -> str:
    """What an error says, without the remedy that the report gives once."""
    return str(error).partition(";")[0]

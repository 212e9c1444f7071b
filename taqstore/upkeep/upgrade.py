"""Upgrade: a store of format 1 becomes one of format 2, in place, a group at a time.

Data files stay as they are. What a group needs in format 2 is put beside what it has; its own
document, replaced last by one rename, makes it a group of format 2. Killed anywhere, every group is
of one format or the other, and the same command goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.items.closing import mask_files, record_files
from taqstore.items.copies import copy_coordinates
from taqstore.items.flags import Items
from taqstore.layout.array_documents import (
    Arrays,
    capacity_of,
    check_array,
    dimensions,
    is_coordinate,
    shard_shape,
)
from taqstore.layout.coordinate_files import chunk_keys
from taqstore.layout.item_records import ABSENT, Identity, Item, ItemLayout
from taqstore.layout.shards import check_content, fingerprint_of
from taqstore.metadata.group_record import GroupRecord, claim_of
from taqstore.metadata.provenance import put_documents
from taqstore.metadata.root import GROUP_DOCUMENT, KEY, Root
from taqstore.metadata.sealed import (
    Document,
    checked_path,
    checksum,
    encoded,
    marker_of,
    parsed,
)
from taqstore.metadata.staging import Staging
from taqstore.metadata.tree import Loaded, check_version
from taqstore.names import FORMAT_VERSION, ITEMS, WRITTEN
from taqstore.place.disk import disk_errors
from taqstore.place.local_backend import LocalBackend
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store import format1
from taqstore.store.groups import create_flags
from taqstore.store.leftovers import remove_leftovers
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import write_with_copies

if TYPE_CHECKING:
    import zarr


@dataclass
class Upgraded:
    """What an upgrade did: groups brought to format 2, and items that lost their flag and why."""

    groups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@takes_storage_options
def upgrade_store(
    address: Address,
    *,
    on_group: Callable[[str], object] | None = None,
    storage_options: StorageOptions | None = None,
) -> Upgraded:
    """Bring a store to the present format.

    Parameters
    ----------
    on_group
        Called with the path of each group before its turn.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    StoreError
        There is no store, it is damaged, or it is not on a local disk.
    """
    location, done = Location.parse(address), Upgraded()
    if location.folder is None:
        what, remedy = "only stores on a local disk are upgraded", "copy it to one"
        raise StoreError(problem(what, where=str(location), remedy=remedy))
    backend = LocalBackend(location.folder)
    with disk_errors(location), backend.locked():
        store = open_store(location, incomplete=True)
        if store.root.format >= FORMAT_VERSION:
            return done
        remove_leftovers(location)
        digest = store.digest
        _check_before(store, backend, done)
        _drop_copies(store, backend)
        for path in store.paths:
            if on_group is not None:
                on_group(path)
            _upgrade_group(store, backend, path, done)
        root = Root(
            FORMAT_VERSION,
            store.root.uuid,
            store.root.created_by,
            groups=store.paths,
            records=format1.count_records(backend),
            digest=digest,
        )
        if root.records:
            put_documents(backend, root)
        write_with_copies(backend, root)
    return done


def _check_before(store: Store, backend: LocalBackend, done: Upgraded) -> None:
    """Refuse what cannot be told whole, before anything is changed; note what may be lost."""
    tree = format1.tree_of(backend, store.root.copies)
    for path in store.paths:
        store.mask(path)
        if marker_of(tree.documents[path]).get("version") != 1:
            continue
        for where, what, lost in format1.absent_labels(backend, path, tree):
            if lost:
                remedy = "put it back, or write the group again with the version that made it"
                raise StoreError(problem(what, where=f"{store.location} {where}", remedy=remedy))
            done.notes.append(f"{where}: {what}")


def _drop_copies(store: Store, backend: LocalBackend) -> None:
    """Take the copy of all metadata from the root, after what the tree lacks was put back."""
    for path, document in (store.root.copies or {}).items():
        key = f"{checked_path(path, KEY)}/{KEY}"
        if backend.size(key) is None:
            plain = document.get("node_type") == "group" and not marker_of(document)
            backend.write(key, [encoded(GROUP_DOCUMENT if plain else document)])
    backend.flush()
    root = parsed(backend.read(KEY) or b"", KEY)
    if root.pop("consolidated_metadata", None) is not None:
        backend.write(KEY, [encoded(root)])
        backend.flush()


def _upgrade_group(store: Store, backend: LocalBackend, path: str, done: Upgraded) -> None:
    document = parsed(backend.read(f"{path}/{KEY}") or b"", f"{path}/{KEY}")
    check_version(document, path)
    if marker_of(document).get("version") == 1:
        _Group(store, backend, path, document, done).upgrade()
        done.groups.append(path)
    # Flags of format 1: leftovers now, and of an upgrade that was cut short.
    old = backend.path(f"{path}/{WRITTEN}/c")
    if old.is_dir():
        shutil.rmtree(old)


@dataclass
class _Group:
    store: Store
    backend: LocalBackend
    path: str
    document: Document
    done: Upgraded

    def upgrade(self) -> None:
        marker = marker_of(self.document)
        dims, extents = tuple(marker["item_dims"]), tuple(marker["item_size"])
        mask = self.store.mask(self.path)
        documents = self._documents()
        layout = ItemLayout.of(self._arrays(documents), dims, extents)
        coordinates = self._coordinates(documents)
        made, copies = self._flags(dims, mask.shape, extents, layout, coordinates)
        identity = {**self.store.root.identity, "format": FORMAT_VERSION}
        record = GroupRecord(self.path, marker["kind"], dims, extents, identity)
        loaded = Loaded(self.path, self.document, record, {})
        items = Items(self.backend, loaded, layout, mask.shape, np.zeros(mask.shape, bool), {})
        records, kept = self._records(items, mask, documents)
        files = {**mask_files(kept), **record_files(items, records), **copies}
        self.backend.write_all(
            {
                f"{self.path}/{name}/{KEY}": encoded(member)
                for name, member in made.items()
                if name != WRITTEN
            }
            | {f"{self.path}/{key}": content for key, content in files.items()}
        )
        self.backend.flush()
        self.backend.write(f"{self.path}/{WRITTEN}/{KEY}", [encoded(made[WRITTEN])])
        self.backend.flush()
        claims = {key: claim_of(content) for key, content in files.items()}
        every = {**documents, **made}
        sums = {name: checksum(member) for name, member in every.items()}
        whole = GroupRecord(
            self.path,
            record.kind,
            dims,
            extents,
            record.store,
            documents=sums,
            files={**{key: claim_of(raw) for key, raw in coordinates.items()}, **claims},
        )
        self.backend.write(f"{self.path}/{KEY}", [encoded(whole.in_document(self.document))])
        self.backend.flush()

    def _documents(self) -> dict[str, Document]:
        found = {}
        for name in sorted(self.backend.names(self.path)):
            raw = self.backend.read(f"{self.path}/{name}/{KEY}")
            if raw is not None and name not in (ITEMS, WRITTEN):
                found[name] = parsed(raw, f"{self.path}/{name}/{KEY}")
                check_array(found[name], f"{self.path}/{name}")
        return found

    def _arrays(self, documents: dict[str, Document]) -> Arrays:
        return {
            name: (dimensions(d), tuple(d["shape"]), shard_shape(d))
            for name, d in documents.items()
            if not is_coordinate(self.document, name, d)
        }

    def _flags(
        self,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        extents: tuple[int, ...],
        layout: ItemLayout,
        coordinates: dict[str, bytes],
    ) -> tuple[dict[str, Document], dict[str, bytes]]:
        """Documents of what format 1 had not, and the copy of its coordinates."""
        staging = Staging()
        group: zarr.Group = staging.root.create_group(self.path)
        create_flags(group, dims, shape, extents, layout)
        staging.put(self.path, coordinates)
        copy_coordinates(staging, self.path)
        documents, files, _ = staging.changed(self.path)
        return documents, {key: raw for key, raw in files.items() if key not in coordinates}

    def _coordinates(self, documents: dict[str, Document]) -> dict[str, bytes]:
        """Every file of the coordinates, as it lies there."""
        found = {}
        for name, document in documents.items():
            if not is_coordinate(self.document, name, document):
                continue
            for key in chunk_keys(name, document):
                raw = self.backend.read(f"{self.path}/{key}")
                if raw is not None:
                    found[key] = raw
        return found

    def _records(
        self, items: Items, mask: np.ndarray, documents: dict[str, Document]
    ) -> tuple[dict[Item, bytes], np.ndarray]:
        """Records of all items whose files are whole, and their mask; others lose their flag."""
        capacities = {name: capacity_of(document) for name, document in documents.items()}
        records, kept = {}, mask.copy()
        for item in np.unique(np.argwhere(mask) // np.array(items.size, np.int64), axis=0):
            number = tuple(map(int, item))
            region = items.region(number)
            flags = np.zeros(items.size, bool)
            part = mask[region]
            flags[tuple(slice(0, n) for n in part.shape)] = part
            try:
                identities = [self._identity(s, capacities) for s in items.layout.shards(number)]
            except ValueError as error:
                kept[region] = False
                label = ", ".join(map(str, number))
                self.done.notes.append(f"{self.path} item {label} loses its flag: {error}")
                continue
            records[number] = items.layout.pack(items.loaded.scope, number, flags, identities)
        return records, kept

    def _identity(self, shard: Any, capacities: dict[str, int | None]) -> Identity:
        name, coords = shard
        key = f"{name}/c/{'/'.join(map(str, coords))}"
        raw = self.backend.read(f"{self.path}/{key}")
        if raw is None and name in format1.SPARSE:
            return ABSENT
        if raw is None:
            raise ValueError(f"{key} is missing")
        try:
            identity = len(raw), fingerprint_of(raw, capacities[name])
            check_content(raw, capacities[name])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        return identity

"""Writing: template -> aligned shard writes -> records, which are flags.

The commit rule: an item's data reach the disk with all that stands behind them, then its record
does. Whatever is killed in between, a flagged item is whole and an unflagged one is written again
by the next run.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taqstore.errors import StoreError, SupersededError, problem
from taqstore.files.targets import check_above_remote, check_above_store, check_below_store
from taqstore.items.copies import copy_coordinates
from taqstore.items.flag_files import holds_flags
from taqstore.items.flags import Items, fresh_items, read_group
from taqstore.layout.template import Template
from taqstore.metadata.group_record import GroupRecord
from taqstore.metadata.provenance import append_record
from taqstore.metadata.root import (
    GROUP_DOCUMENT,
    KEY,
    NEW,
    Root,
    read_root,
    without_copies,
    write_root,
)
from taqstore.metadata.sealed import parsed
from taqstore.metadata.staging import Staging
from taqstore.metadata.tree import (
    Change,
    load_group,
    make_parents,
    parents_of,
    put_in_place,
    settled,
)
from taqstore.names import FORMAT_VERSION, PROVENANCE
from taqstore.place.backend import Backend
from taqstore.place.disk import disk_errors
from taqstore.place.local_backend import WORK
from taqstore.place.location import Address, Location
from taqstore.place.plain_files import flush_path, is_foreign
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.dealing import dealt
from taqstore.store.group_writer import GroupWriter, close_groups
from taqstore.store.groups import check_compatible, create_arrays
from taqstore.store.growth import grow_group
from taqstore.store.leftovers import remove_leftovers
from taqstore.store.unfilled import drop_groups, is_dropped, remove_unfilled

if TYPE_CHECKING:
    import zarr


_log = logging.getLogger(__name__)
# Changes that another writer was faster with are tried again.
_TRIES = 5
# Groups whose counts are added up at once: each holds a run of steps of them.
_ADDING = 2


@takes_storage_options
def create_store(address: Address, *, storage_options: StorageOptions | None = None) -> StoreWriter:
    """Open a store for writing, creating it when there is none.

    Parameters
    ----------
    address
        A path, a URL, or a storage object of zarr.
    storage_options
        How buckets and servers are reached, by name, as obstore or fsspec calls it. Default: what
        the environment says.

    Raises
    ------
    StoreError
        The place is not a store, is of another format, or cannot be written.
    """
    return StoreWriter(Location.parse(address))


class StoreWriter:
    """A store open for writing. Use as a context manager, or call `finish`."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._aside: list[Path] = []
        self._opened: dict[str, GroupWriter] = {}
        with disk_errors(location):
            self.backend = self._open()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.finish(succeeded=kind is None)

    def _open(self) -> Backend:
        folder = self.location.folder
        backend = self.location.backend(read_only=False)
        backend.begin(owner=str(self.location))
        try:
            if folder is not None:
                check_place(folder)
            # Off the local disk there is nothing to clear away: who comes later needs no lock.
            if folder is not None or backend.read(KEY) is None:
                changed(backend, partial(self._make, backend))
            check_format(read_root(backend, str(self.location)), self.location)
        except BaseException:
            backend.end()
            raise
        _log.debug("opened %s for writing", self.location)
        return backend

    def _make(self, backend: Backend) -> None:
        folder = self.location.folder
        if folder is not None:
            # Under the lock: a store that another process is making is one by now.
            check_below_store(folder)
            _make_folder(folder)
            remove_leftovers(self.location)
        if backend.read(KEY) is None:
            if folder is None:
                check_free(self.location, backend)
            write_root(backend, new_root())

    def _change(self, what: Callable[[], Any]) -> Any:
        """Change what writers share: its structure, one writer at a time."""
        with disk_errors(self.location):
            return changed(self.backend, what)

    def root_record(self) -> Root:
        """What the root says now."""
        return read_root(self.backend, str(self.location))

    def node(self, path: str) -> zarr.Group | None:
        """A finished group as zarr sees it; None if there is none.

        Raises
        ------
        StoreError
            It is damaged.
        """
        loaded = load_group(self.backend, path, where=str(self.location))
        return None if loaded is None else loaded.node(self.location.zarr_store(read_only=True))

    def group(self, template: Template, *, replace: bool = False) -> GroupWriter:
        """Create the template's group, or open it for more items.

        Parameters
        ----------
        replace
            Set an existing group aside and write a new one; the old one is deleted by `finish`.

        Raises
        ------
        LayoutError
            An existing group differs; the message names the fields.
        StoreError
            An existing group is damaged; it is left as it is.
        """
        replaced = [template.path] if replace else []
        return self.groups([template], replaced=replaced)[template.path]

    def groups(
        self, templates: Sequence[Template], *, replaced: Collection[str] = ()
    ) -> dict[str, GroupWriter]:
        """Create or open several groups by one change of the store; by path, raises as `group`.

        A group that differs or is damaged refuses all of them before any is changed.
        """
        uuid, known = self._as_they_are([t for t in templates if t.path not in replaced])
        others = [t for t in templates if t.path not in known]
        if others:
            uuid, changed = self._change(partial(self._open_groups, others, replaced))
            known |= changed
        opened = {
            t.path: GroupWriter(self.location, self.backend, t, uuid, known=known[t.path])
            for t in templates
        }
        self._opened |= opened
        return opened

    def _as_they_are(self, templates: Sequence[Template]) -> tuple[str, dict[str, Items]]:
        """Groups that are there and need no change, for which no lock is needed; the store's id."""
        where, found = str(self.location), dict[str, Items]()
        with disk_errors(self.location):
            root = self.root_record()
            for template in templates:
                with suppress(StoreError):  # told, or found to be passing, under the lock
                    items = self._as_it_is(template, root, where)
                    found |= {} if items is None else {template.path: items}
        return root.uuid, found

    def _as_it_is(self, template: Template, root: Root, where: str) -> Items | None:
        if template.path not in root.groups:
            return None
        items = read_group(self.backend, template.path, uuid=root.uuid, where=where)
        return items if items and _growth(items, template) is None else None

    def _open_groups(
        self, templates: Sequence[Template], replaced: Collection[str]
    ) -> tuple[str, dict[str, Items]]:
        backend, where = self.backend, str(self.location)
        root = without_copies(backend, where)
        away = [template.path for template in templates if template.path in replaced]
        root = self._set_aside(away, root) if away else root
        there = {
            t.path: read_group(backend, t.path, uuid=root.uuid, where=where) for t in templates
        }
        changes = list[Change]()
        for template in templates:
            items = there[template.path]
            if items is not None:
                grown = _growth(items, template)
                changes += [] if grown is None else [_settled(backend, items, grown)]
                continue
            self._refuse_damaged(template.path, root)
            changes.append(_creation(template, root))
        make_parents(backend, [change.path for change in changes if change.new])
        put_in_place(backend, changes)
        if missing := [path for path in there if path not in root.groups]:
            write_root(backend, root.listing(missing))
        known = {path: items for path, items in there.items() if items is not None}
        known |= {new.path: fresh_items(backend, new.loaded()) for new in changes if new.new}
        return root.uuid, known

    def _refuse_damaged(self, path: str, root: Root) -> None:
        """Refuse to make a group where there is one whose document is lost."""
        listed = path in root.groups
        if listed or (holds_flags(self.backend, path) and not is_dropped(self.backend, path)):
            what = "this group's document is missing, and its data are not"
            where = f"{self.location} {path}"
            raise StoreError(problem(what, where=where, remedy="see taqstore repair"))
        self.backend.delete(path)

    def _set_aside(self, paths: Sequence[str], root: Root) -> Root:
        # Out of the list first: what is listed and not there is lost.
        remaining = tuple(path for path in root.groups if path not in paths)
        if remaining != root.groups:
            root = replace(root, groups=remaining)
            write_root(self.backend, root)
        for path in paths:
            self._rename_aside(path)
        return root

    def _rename_aside(self, path: str) -> None:
        if self.location.folder is None:
            self.backend.delete(path)
            return
        folder = self.location.folder / path
        if folder.exists():
            name = f"{path.replace('/', '@')}.{uuid.uuid4().hex[:8]}"
            aside = self.location.beside("replaced") / name
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
            for moved in (folder.parent, aside.parent, aside.parent.parent):
                flush_path(moved)
            self._aside.append(aside)

    def remove_unfilled(self, paths: Collection[str], *, among: Collection[str]) -> None:
        """Remove those of these groups that hold no whole item, so that others take their place.

        None while a process is at work on an item of `among`.
        """
        self._change(partial(remove_unfilled, self.location, self.backend, paths, among=among))

    def close_flags(self, *paths: str) -> None:
        """Close the flags that are set by now in these groups, by any process; none: of all."""
        self._change(partial(self._close_groups, paths or tuple(self._opened)))

    def _close_groups(self, paths: Collection[str]) -> None:
        close_groups([self._opened[path] for path in paths])

    def drop(self, paths: Collection[str]) -> None:
        """Remove groups that are needed no more, whatever they hold; see `drop_groups`."""
        self._change(partial(drop_groups, self.backend, paths, where=str(self.location)))
        for path in paths:
            self._opened.pop(path, None)

    def record(self, record: Mapping[str, Any]) -> None:
        """Append a provenance record."""
        self._change(partial(self._record, record))

    def _record(self, record: Mapping[str, Any]) -> None:
        root = without_copies(self.backend, str(self.location))
        write_root(self.backend, append_record(self.backend, root, record))

    def finish(self, *, succeeded: bool = True) -> None:
        """Close flags and copy metadata to the root; delete what was replaced if all went well."""
        try:
            self._change(self._close)
            if succeeded:
                self._add_up()
        finally:
            self.backend.end()
        if self.location.folder is None:
            return
        if succeeded:
            for aside in self._aside:
                shutil.rmtree(aside, ignore_errors=True)  # another writer may have
            self._aside.clear()
        for kind in ("replaced", "locks", WORK):
            with suppress(OSError):  # not empty, or never made: another writer is at work
                self.location.beside(kind).rmdir()

    def _add_up(self) -> None:
        """Keep sums of counts; decoding and adding let go of the interpreter."""
        with ThreadPoolExecutor(_ADDING) as pool:
            for _ in dealt(pool, _ADDING)(GroupWriter.add_up, self._opened.values()):
                pass

    def _close(self) -> None:
        self._close_groups(self._opened)
        root = self.root_record()
        if root.copies is None:
            write_with_copies(self.backend, root)


def changed(backend: Backend, what: Callable[[], Any]) -> Any:
    """Change what writers share under their lock; again where another one was faster.

    Raises
    ------
    StoreError
        Others were faster every time, or as the change says.
    """
    for _ in range(_TRIES):
        try:
            with backend.locked():
                return what()
        except SupersededError:
            continue
    with backend.locked():
        return what()


def check_free(location: Location, backend: Backend) -> None:
    """Refuse a place of a new store, off the local disk, that is not empty or lies in a store."""
    if backend.names(""):
        raise not_empty(str(location))
    check_above_remote(location)


def check_place(folder: Path) -> None:
    """Refuse a folder that is no store and not empty, a file, and what lies above a store."""
    if folder.is_dir():
        found = [path.name for path in folder.iterdir() if not is_foreign(path.name)]
        if found and KEY not in found:
            raise not_empty(str(folder))
    elif folder.exists():
        what, remedy = "a file is in the way of the store", "choose another path"
        raise StoreError(problem(what, where=str(folder), remedy=remedy))
    check_above_store(folder)


def check_format(root: Root, location: Location) -> None:
    """Refuse a store of an older format."""
    if root.format < FORMAT_VERSION:
        what = f"a store of format {root.format} is read, and not written to"
        remedy = f"taqstore upgrade {location}"
        raise StoreError(problem(what, where=str(location), remedy=remedy))


def not_empty(where: str) -> StoreError:
    """The refusal of a place that holds something else."""
    remedy = "choose another path for the store"
    return StoreError(problem("not a taqstore and not empty", where=where, remedy=remedy))


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        flush_path(path.parent)


def new_root() -> Root:
    """The root of a store that is made now."""
    from taqstore.version import __version__

    return Root(FORMAT_VERSION, str(uuid.uuid4()), f"taqstore {__version__}", digest=NEW)


def _creation(template: Template, root: Root) -> Change:
    """A group as a template says."""
    staging = Staging()
    create_arrays(staging.root, template)
    copy_coordinates(staging, template.path)
    documents, files, document = staging.changed(template.path)
    extents = tuple(template.item_extent(d) for d in template.item_dims)
    record = GroupRecord(
        template.path, template.kind, tuple(template.item_dims), extents, root.identity
    )
    return Change(template.path, record, document, documents, files, new=True)


def _growth(items: Items, template: Template) -> Change | None:
    """What a template changes in a group; None where it has all of that."""
    loaded, done = items.loaded, items.mask
    staging = Staging(loaded)
    group: Any = staging.root[template.path]
    check_compatible(group, template, done)
    grow_group(group, template, done)
    documents, files, document = staging.changed(template.path)
    if not (documents or files or document != loaded.document):
        return None
    copy_coordinates(staging, template.path)
    documents, files, document = staging.changed(template.path)
    return Change(template.path, loaded.record, document, documents, files)


def _settled(backend: Backend, items: Items, grown: Change) -> Change:
    """The change of a group of which the last one may have been cut short."""
    return replace(grown, record=settled(backend, items.loaded))


def write_with_copies(
    backend: Backend, root: Root, *, known: Mapping[str, Any] | None = None
) -> None:
    """Write the root with a copy of all metadata below it. The caller holds the store's lock.

    Parameters
    ----------
    known
        Copies that the root had: kept for damaged groups, which are left out otherwise; who opens
        one of these reads, and refuses, its own documents.
    """
    write_root(backend, replace(root, copies=_copies_of(backend, root, known or {})))


def _copies_of(backend: Backend, root: Root, known: Mapping[str, Any]) -> dict[str, Any]:
    copies: dict[str, Any] = {}
    for path in (*root.groups, *([PROVENANCE] if root.records else ())):
        try:
            loaded = load_group(backend, path, uuid=root.uuid)
        except StoreError:
            loaded = None
        if loaded is None:
            copies |= {p: d for p, d in known.items() if p == path or p.startswith(f"{path}/")}
            continue
        for above in parents_of(path):
            copies.setdefault(above, GROUP_DOCUMENT)
        copies[path] = loaded.document
        for name in loaded.record.paths:
            raw = loaded.file(f"{name}/{KEY}")
            copies[f"{path}/{name}"] = parsed(raw or b"{}", f"{path}/{name}")
    return copies

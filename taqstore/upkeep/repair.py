"""Repair: what can be mended is mended, what cannot is unflagged, what was left behind is removed.

Nothing that is whole is touched. Metadata comes from its second copy; an item with a damaged file
loses its flag, so that the command that wrote it, with `--resume`, writes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from taqstore.errors import StoreError, problem
from taqstore.items.closing import rebuild_flags
from taqstore.items.copies import copied_files, copy_files
from taqstore.items.flags import Items
from taqstore.metadata.provenance import EMPTY_RECORD, put_documents
from taqstore.metadata.root import GROUP_DOCUMENT, KEY, Root, write_root
from taqstore.metadata.sealed import encoded
from taqstore.metadata.tree import Loaded
from taqstore.names import COMMIT, COPIES, PROVENANCE, RECORD
from taqstore.place.backend import Backend
from taqstore.place.disk import disk_errors
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store.leftovers import find_leftovers, remove
from taqstore.store.writer import write_with_copies
from taqstore.upkeep.group_check import Finding, GroupCheck
from taqstore.upkeep.obstacles import obstacles, set_aside
from taqstore.upkeep.verify import Survey, root_of, survey


@dataclass(frozen=True)
class Step:
    """One thing that repair does, or cannot do.

    Parameters
    ----------
    where, what
        The place, and what is done there.
    done
        False for what cannot be mended; `what` says how to go on.
    """

    where: str
    what: str
    done: bool = True


@takes_storage_options
def repair_store(
    address: Address,
    *,
    dry_run: bool = False,
    storage_options: StorageOptions | None = None,
) -> list[Step]:
    """Mend a store of format 2.

    Parameters
    ----------
    dry_run
        Say what would be done, and change nothing.
    storage_options
        As of `taqstore.open_store`.

    Returns
    -------
    What was done, in order; empty where the store is whole.

    Raises
    ------
    StoreError
        There is no store, it is of format 1, or nothing in it tells which store it was.
    """
    location = Location.parse(address)
    backend = location.backend(read_only=dry_run)
    # Where nothing is changed nothing is put in a bucket either, a lock's lease least of all.
    alone = dry_run and location.folder is None
    with disk_errors(location), nullcontext() if alone else _as_writer(backend, location):
        return list(_Repair(survey(location, backend), dry_run).run())


@contextmanager
def _as_writer(backend: Backend, location: Location) -> Iterator[None]:
    """Hold the store as one that writes to it: the only one, where only one may."""
    backend.begin(owner=str(location))
    try:
        with backend.locked():
            yield
    finally:
        backend.end()


@dataclass
class _Repair:
    found: Survey
    dry_run: bool

    def run(self) -> Iterator[Step]:
        root = self._root()
        location = self.found.location
        for place, what in obstacles(self.found):
            yield self._step(place, f"{what}; set aside", partial(set_aside, location, place))
        yield from self._parents()
        whole = []
        for check in self.found.groups.values():
            lost = False
            for step in self._texts(check):
                lost = lost or not step.done
                yield step
            whole += [] if lost else [check]
        kept = tuple(p for p, c in self.found.groups.items() if c.loaded is not None)
        # So far the root's copies held; what comes now changes documents.
        records = any(finding.group == PROVENANCE for finding in self.found.damage)
        changed = records or kept != root.groups or any(map(_loses_flags, whole))
        if self.found.root is None or changed:
            if self.found.root is not None and not self.dry_run:
                write_root(self.found.backend, replace(root, copies=None))
            for check in whole:
                if check.items is not None:
                    yield from self._items(check, check.items)
            yield from self._gone()
            yield from self._provenance(root)
            yield self._step(
                KEY,
                "written again, with a copy of all metadata",
                partial(
                    write_with_copies,
                    self.found.backend,
                    replace(root, groups=kept),
                    known=root.copies,
                ),
            )
        yield from self._leftovers()

    def _root(self) -> Root:
        root = self.found.root or root_of(self.found)
        where = str(self.found.location)
        if root is None:
            what = "nothing in it tells which store this was"
            remedy = "restore its zarr.json from a backup"
            raise StoreError(problem(what, where=where, remedy=remedy))
        if root.format == 1:
            remedy = "taqstore upgrade first"
            raise StoreError(problem("a store of format 1", where=where, remedy=remedy))
        return root

    def _step(self, where: str, what: str, action: Callable[[], object]) -> Step:
        """Do it, unless it is only to be told; what cannot be done does not stop the rest."""
        try:
            if not self.dry_run:
                action()
        except (StoreError, OSError) as error:
            return Step(where, f"cannot be mended: {error}", done=False)
        return Step(where, what)

    def _written(self, key: str, raw: bytes, source: str) -> Step:
        def write() -> None:
            self.found.backend.write_all({key: raw})
            self.found.backend.flush()

        return self._step(key, f"written again {source}", write)

    def _parents(self) -> Iterator[Step]:
        groups = set(self.found.groups)
        for finding in self.found.damage:
            if finding.group or not finding.key or finding.key == KEY:
                continue
            if finding.key.removesuffix(f"/{KEY}") not in groups:
                yield self._written(finding.key, encoded(GROUP_DOCUMENT), "as a plain group")

    def _texts(self, check: GroupCheck) -> Iterator[Step]:
        """Documents and coordinates of a group, from their copies."""
        if check.gone or not check.damage:
            return
        if check.loaded is None:
            yield Step(check.path, "its document is lost, and there is no copy", done=False)
            return
        for finding in (f for f in check.damage if f.key.endswith(f"/{KEY}")):
            raw = check.loaded.content.get(finding.key)
            if raw is None:
                yield Step(finding.key, f"{finding.what}; {_NO_COPY}", done=False)
            else:
                yield self._written(finding.key, raw, "from the root's copy")
        yield from self._small_files(check, check.loaded)
        yield from _meaningless(check)

    def _small_files(self, check: GroupCheck, loaded: Loaded) -> Iterator[Step]:
        """Coordinates from their copy, and the copy from them."""
        base = len(check.path) + 1
        damaged = [f for f in check.damage if _is_small_file(f, check)]
        files = {key[base:]: raw for key, raw in loaded.content.items() if "/c/" in key}
        copies = copied_files(self.found.backend, loaded) if damaged else {}
        for finding in damaged:
            key = finding.key[base:]
            if key.startswith(f"{COPIES}/"):
                continue
            raw = copies.get(key)
            if raw is None or not loaded.record.fits_file(key, raw):
                yield Step(finding.where, f"{finding.what}; {_NO_COPY}", done=False)
                continue
            files[key] = raw
            yield self._written(finding.key, raw, "from the copy of all coordinates")
        for finding in (f for f in damaged if f.key[base:].startswith(f"{COPIES}/")):
            raw = copy_files(files).get(finding.key[base:])
            if raw is None or not loaded.record.fits_file(finding.key[base:], raw):
                yield Step(finding.where, f"{finding.what}; {_NO_COPY}", done=False)
                continue
            yield self._written(finding.key, raw, "from the coordinates")

    def _items(self, check: GroupCheck, items: Items) -> Iterator[Step]:
        dropped = sorted({f.item for f in check.damage if f.item is not None})
        stray = [f for f in check.damage if f.key.startswith(f"{check.path}/{COMMIT}/c.")]
        for finding in stray:
            what = "this flag is removed; --resume writes the item again"
            yield self._step(finding.where, what, partial(self.found.backend.delete, finding.key))
        gone = {f.item for f in stray}
        for item in (item for item in dropped if item not in gone):
            what = "its flag is taken away; --resume writes it again"
            yield Step(f"{check.path} item {', '.join(map(str, item))}", what)
        rebuilt = any(_is_flag_file(f, check) for f in check.damage)
        rebuild = partial(rebuild_flags, items, without=dropped)
        if rebuilt:
            where = f"{check.path}/written"
            yield self._step(where, "made again from the records of items", rebuild)
        elif dropped and not self.dry_run:
            rebuild()

    def _gone(self) -> Iterator[Step]:
        for path, check in self.found.groups.items():
            if check.gone:
                what = "the root lists it, and the tree has it no more; taken from the list"
                yield Step(path, what)

    def _provenance(self, root: Root) -> Iterator[Step]:
        bad = [f for f in self.found.damage if f.group == PROVENANCE]
        for finding in bad:
            if finding.key and not finding.key.endswith(f"/{KEY}"):
                what = "this record is set aside"
                yield self._step(finding.where, what, partial(self._set_aside, finding.key))
        documents = partial(put_documents, self.found.backend, root)
        if any(not f.key or f.key.endswith(f"/{KEY}") for f in bad):
            yield self._step(PROVENANCE, "its documents are written again", documents)
        elif (bad or (self.found.root is None and root.records)) and not self.dry_run:
            documents()

    def _set_aside(self, key: str) -> None:
        """Leave an empty record in place of a bad one; plain readers pass over it."""
        if self.found.location.folder is not None and self.found.backend.size(key) is not None:
            set_aside(self.found.location, key)
        self.found.backend.write_all({key: EMPTY_RECORD})
        self.found.backend.flush()

    def _leftovers(self) -> Iterator[Step]:
        for leftover in find_leftovers(self.found.location, deep=True):
            if leftover.safe:
                what = f"{leftover.what}; removed"
                yield self._step(str(leftover.path), what, partial(remove, leftover))


def _meaningless(check: GroupCheck) -> Iterator[Step]:
    """What is as it was written and means nothing: no copy tells what it was.

    Beside damaged files it may be their doing; once they are mended, the next call tells.
    """
    if any(finding.key for finding in check.damage):
        return
    for finding in (f for f in check.damage if f.item is None):
        what = finding.what.partition("; see taqstore verify")[0]
        yield Step(finding.where, f"{what}; {_NO_COPY}", done=False)


_NO_COPY = "there is no copy of it: --force of the command that wrote the group makes it anew"


def _loses_flags(check: GroupCheck) -> bool:
    """Whether flags of a group are to be written anew."""
    return any(f.item is not None or _is_flag_file(f, check) for f in check.damage)


def _is_flag_file(finding: Finding, check: GroupCheck) -> bool:
    key = finding.key.removeprefix(f"{check.path}/")
    return key.startswith("written/c.") or key.startswith(f"{RECORD}/c")


def _is_small_file(finding: Finding, check: GroupCheck) -> bool:
    """Whether it is a file of a coordinate, or of their copy."""
    key = finding.key.removeprefix(f"{check.path}/")
    return bool(key) and finding.item is None and "/c/" in key and not _is_flag_file(finding, check)

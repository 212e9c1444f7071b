"""Groups as they lie in a store: read and checked whole, and changed by one rule.

Only what is small is read here: documents, coordinates, flags. A change is staged in memory by
zarr itself, and what came out different is put in place: first the group's record names what is
coming, then the files follow, then the record says that they are there. Killed anywhere, the group
is whole: everything is either as it was or as it will be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from taqstore.errors import NewerError, StoreError, problem
from taqstore.metadata.group_record import VERSION, GroupRecord, claim_of
from taqstore.metadata.root import GROUP_DOCUMENT, KEY, copies_now
from taqstore.metadata.sealed import (
    Document,
    check_seal,
    checksum,
    checksum_of,
    damaged,
    encoded,
    foreign,
    marker_of,
    parsed,
)
from taqstore.names import ITEMS, WRITTEN
from taqstore.place.backend import Backend

if TYPE_CHECKING:
    import zarr

# A writer may put files in place while they are read: what does not fit is read again.
_TRIES = 5
ReadFiles: TypeAlias = Callable[[Backend, str, GroupRecord], Mapping[str, bytes | None]]
"""How the small files of a group are read, by key below it; those left out are not there yet."""


def every_file(backend: Backend, path: str, record: GroupRecord) -> Mapping[str, bytes | None]:
    """Coordinates and closed flags of a group, each from its own file."""
    # Records are read when an item is, copies when something is mended.
    keys = [key for key in record.keys if not key.startswith(f"{ITEMS}/")]
    raws = backend.read_many(f"{path}/{key}" for key in keys)
    return {key: raws[f"{path}/{key}"] for key in keys}


@dataclass(frozen=True)
class _Content(Mapping[str, bytes]):
    """Bytes of a group's documents and small files, by key below the root.

    Parameters
    ----------
    files
        Those that were read.
    copied
        Documents that the root has copies of: few are asked for as text again.
    """

    files: Mapping[str, bytes]
    copied: Mapping[str, Document]

    def __getitem__(self, key: str) -> bytes:
        found = self.files.get(key)
        return encoded(self.copied[key]) if found is None else found

    def __iter__(self) -> Iterator[str]:
        yield from self.copied
        yield from self.files

    def __len__(self) -> int:
        return len(self.copied) + len(self.files)


@dataclass(frozen=True)
class Loaded:
    """One group, checked.

    Parameters
    ----------
    path, document, record
        Where it is, its own document, and what that says belongs to it.
    content
        Bytes of its documents and small files, by key below the root.
    """

    path: str
    document: Document
    record: GroupRecord
    content: Mapping[str, bytes]

    def node(self, store: Any) -> zarr.Group:
        """The group for zarr, over a zarr store that holds its data."""
        import zarr

        from taqstore.metadata.overlay import Overlay

        overlay = Overlay(store, self.content)
        with foreign(self.path):
            return zarr.open_group(
                overlay, path=self.path, mode="r", use_consolidated=False, zarr_format=3
            )

    @property
    def scope(self) -> str:
        """What its items' records are bound to: the store and the place of the group."""
        return f"{self.record.store['uuid']}/{self.path}"

    def file(self, key: str) -> bytes | None:
        """A small file below the group."""
        return self.content.get(f"{self.path}/{key}")

    def node_document(self, name: str) -> Document | None:
        """The document of an array or a group below, parsed once: not to be changed."""
        if name not in self._parsed and (found := self._document_at(name)) is not None:
            self._parsed[name] = found
        return self._parsed.get(name)

    def _document_at(self, name: str) -> Document | None:
        key, content = f"{self.path}/{name}/{KEY}", self.content
        if isinstance(content, _Content) and key in content.copied:
            return content.copied[key]
        raw = content.get(key)
        return None if raw is None else json.loads(raw)

    @cached_property
    def _parsed(self) -> dict[str, Document]:
        return {}


def load_group(
    backend: Backend,
    path: str,
    *,
    copies: Mapping[str, Document] | None = None,
    uuid: str | None = None,
    where: str = "",
    read: ReadFiles = every_file,
) -> Loaded | None:
    """Read a group; None if there is none, or one that was never finished.

    Parameters
    ----------
    copies
        The root's copies of documents, where it has them: they are believed, whatever lies in the
        tree, until the root says something else.
    uuid
        Of the store that it has to belong to; None: not compared.
    read
        How its small files are read; each is compared with the record.

    Raises
    ------
    StoreError
        A document or a file is not what was written, or of another group or store; it is named.
    """
    for attempt in range(_TRIES):
        document = _document(backend, path, copies, where)
        if document is None:
            return None
        try:
            return _checked(backend, path, document, copies, uuid, where, read)
        except StoreError:
            if attempt == _TRIES - 1:
                raise
            # The copies are of one moment; a writer drops them before it changes anything.
            before, copies = copies, None if copies is None else copies_now(backend)
            if before == copies and _document(backend, path, copies, where) == document:
                raise
    raise damaged(f"{where} {path}".strip(), "changing all the time")


def _document(
    backend: Backend, path: str, copies: Mapping[str, Document] | None, where: str
) -> Document | None:
    name = f"{where} {path}".strip()
    if copies is not None and path in copies:
        document = copies[path]
    else:
        raw = backend.read(f"{path}/{KEY}")
        if raw is None:
            return None
        document = parsed(raw, f"{name}/{KEY}")
    marker = marker_of(document)
    if not marker:
        return None
    check_version(document, name)
    check_seal(document, f"{name}/{KEY}")
    return document


def is_as_before(backend: Backend, loaded: Loaded) -> bool:
    """Whether a group's own document, which names all others, says what it said before."""
    raw = backend.read(f"{loaded.path}/{KEY}")
    return raw is not None and checksum_of(raw, loaded.path) == checksum(loaded.document)


def check_version(document: Document, where: str) -> None:
    """Refuse a group of a version that is not known, by a NewerError."""
    version = marker_of(document).get("version")
    if type(version) is not int or version > VERSION:
        what = f"a group of version {str(version)[:40]}, which this taqstore does not know"
        raise NewerError(problem(what, where=where, remedy="upgrade taqstore"))


def _checked(
    backend: Backend,
    path: str,
    document: Document,
    copies: Mapping[str, Document] | None,
    uuid: str | None,
    where: str,
    read: ReadFiles,
) -> Loaded:
    record = GroupRecord.of(document, f"{where} {path}")
    if stranger := record.stranger(path, uuid):
        raise damaged(f"{where} {path}/{KEY}".strip(), stranger)
    copied = {f"{path}/{KEY}": document} | _copied(path, record, copies or {}, where)
    content = _members(backend, path, record, copied, where)
    for key, raw in read(backend, path, record).items():
        if raw is None and not record.expects(key):
            continue
        if raw is None or not record.fits_file(key, raw):
            found = "missing" if raw is None else "not what was written"
            raise damaged(f"{where} {path}/{key}".strip(), found, _called(key))
        content[f"{path}/{key}"] = raw
    return Loaded(path, document, record, _Content(content, copied))


def _called(key: str) -> str:
    return "damaged completion flags" if key.startswith(f"{WRITTEN}/") else "damaged coordinate"


def _copied(
    path: str, record: GroupRecord, copies: Mapping[str, Document], where: str
) -> dict[str, Document]:
    """Documents of a group's arrays and groups that the root has copies of, by key."""
    found = {}
    for name in record.paths:
        document, key = copies.get(f"{path}/{name}"), f"{path}/{name}/{KEY}"
        if document is not None:
            _check_fits(record, name, checksum(document), f"{where} {key}".strip())
            found[key] = document
    return found


def _members(
    backend: Backend, path: str, record: GroupRecord, copied: Mapping[str, Document], where: str
) -> dict[str, bytes]:
    """Documents of a group's other arrays and groups, by key below the root."""
    found = {}
    names = {f"{path}/{name}/{KEY}": name for name in record.paths}
    known = _remembered(backend, path, record)
    wanted = [key for key in names if key not in copied]
    read = known | backend.read_many(key for key in wanted if key not in known)
    for key in wanted:
        raw, label = read[key], f"{where} {key}".strip()
        if raw is None:
            raise damaged(label, "missing")
        _check_fits(record, names[key], checksum_of(raw, label), label)
        found[key] = raw
    return found


def _check_fits(record: GroupRecord, name: str, found: int, label: str) -> None:
    if not record.fits_document(name, found):
        raise damaged(label, "not what was written")


def _remembered(backend: Backend, path: str, record: GroupRecord) -> dict[str, bytes | None]:
    """Documents that need not be read again: those known are the ones that the group records."""
    known: dict[str, bytes | None] = {}
    for name in record.paths:
        key = f"{path}/{name}/{KEY}"
        raw = backend.remembered(key)
        if raw is not None and checksum_of(raw, key) == record.documents.get(name):
            known[key] = raw
    return known


@dataclass(frozen=True)
class Change:
    """What is to become of one group.

    Parameters
    ----------
    path
        Of the group.
    record, document
        Its record so far, and its document as it is to be.
    documents, files
        What changes, by path or key below the group.
    new
        The group is being made: until its own document is there, it does not exist.
    """

    path: str
    record: GroupRecord
    document: Document
    documents: Mapping[str, Document]
    files: Mapping[str, bytes]
    new: bool = False

    @property
    def announced(self) -> Document:
        """The group's document while the rest is put in place."""
        return self._coming.in_document(self.document)

    @cached_property
    def done(self) -> Document:
        """The group's document afterwards."""
        return self._coming.arrived().in_document(self.document)

    @cached_property
    def _coming(self) -> GroupRecord:
        return self.record.with_coming(self.documents, self.files)

    @cached_property
    def content(self) -> dict[str, bytes]:
        """What is put in place before the document, by key below the root."""
        texts = {f"{name}/{KEY}": encoded(document) for name, document in self.documents.items()}
        return {f"{self.path}/{key}": raw for key, raw in {**self.files, **texts}.items()}

    def loaded(self) -> Loaded:
        """A new group as `load_group` reads it afterwards."""
        own, unread = {f"{self.path}/{KEY}": encoded(self.done)}, f"{self.path}/{ITEMS}/"
        content = {
            key: raw
            for key, raw in self.content.items()
            if key.endswith(f"/{KEY}") or not key.startswith(unread)
        }
        return Loaded(self.path, self.done, self._coming.arrived(), {**own, **content})


def put_in_place(backend: Backend, changes: Sequence[Change]) -> None:
    """Write what changed in groups, so that each is whole at every moment, power cuts included.

    Groups that change together share the flushes of the disk: of twelve each takes a tenth of the
    time that it takes alone.
    """
    before = {one.path: one.announced for one in changes if not one.new}
    _write_documents(backend, before)
    content = {key: raw for one in changes for key, raw in one.content.items()}
    # The length of `written` is the length of a group: it grows when all else has grown, and that
    # is on disk.
    lengths = (f"{path}/{WRITTEN}/{KEY}" for path in before)
    last = {key: content.pop(key) for key in lengths if key in content}
    for files in (content, last):
        if files:
            backend.write_all(files)
            backend.flush()
    _write_documents(backend, {one.path: one.done for one in changes})


def _write_documents(backend: Backend, documents: Mapping[str, Document]) -> None:
    if documents:
        backend.write_all({f"{path}/{KEY}": encoded(one) for path, one in documents.items()})
        backend.flush()


def parents_of(path: str) -> list[str]:
    """Paths of the groups above one, from the top; the root is none of them."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def make_parents(backend: Backend, paths: Sequence[str]) -> None:
    """Plain groups above data groups, where they are missing."""
    keys = dict.fromkeys(f"{above}/{KEY}" for path in paths for above in parents_of(path))
    missing = [key for key, raw in backend.read_many(keys).items() if raw is None]
    if missing:
        backend.write_all(dict.fromkeys(missing, encoded(GROUP_DOCUMENT)))
        backend.flush()


def settled(backend: Backend, loaded: Loaded, *, unless: Sequence[str] = ()) -> GroupRecord:
    """The record of what is there, where the last change of a group was cut short.

    Every small file was checked to be the one recorded or the one that was coming; so are the
    closed item records now.

    Parameters
    ----------
    unless
        Files that are about to be written anew, whatever they are.
    """
    record = loaded.record
    if record.coming == ({}, {}):
        return record
    documents, files = {}, {}
    for name in record.paths:
        raw = loaded.file(f"{name}/{KEY}")
        if raw is not None:
            documents[name] = checksum(json.loads(raw))
    for key in record.keys:
        if key in unless:
            continue
        raw = loaded.file(key)
        raw = backend.read(f"{loaded.path}/{key}") if raw is None else raw
        if raw is None and not record.expects(key):
            continue
        if raw is None or not record.fits_file(key, raw):
            raise damaged(f"{loaded.path}/{key}", "missing" if raw is None else "changed")
        files[key] = claim_of(raw)
    return replace(record, documents=documents, files=files, coming=({}, {}))

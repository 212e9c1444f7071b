"""Verify: everything of a store that is not what was written, by name, and what was left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from taqstore.errors import NewerError, StoreError, TaqError
from taqstore.files.schema import validate
from taqstore.items.flag_files import holds_flags
from taqstore.kinds.nonfinite import NonFinite, nonfinite
from taqstore.metadata.group_record import GroupRecord
from taqstore.metadata.provenance import BadRecord, count_record_files, each_record
from taqstore.metadata.root import GROUP_DOCUMENT, KEY, NEW, Root, no_store, parsed_root
from taqstore.metadata.sealed import check_seal, marker_of, parsed
from taqstore.metadata.tree import parents_of
from taqstore.names import PROVENANCE
from taqstore.place.backend import Backend
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.dealing import Each, one_by_one
from taqstore.store.leftovers import find_leftovers
from taqstore.store.unfilled import is_dropped
from taqstore.upkeep.group_check import Finding, GroupCheck
from taqstore.upkeep.shard_check import ShardPart, compared

__all__ = ["Finding", "Report", "Survey", "survey", "verify_store"]
# A writer may close flags while they are looked at.
_TRIES = 20
_DEEPEST = 6
# The documents of the root and of a group, which a writer may change.
_State = tuple[bytes | None, bytes | None]


@dataclass(frozen=True)
class Report:
    """Everything `verify` looked at and found; `damage` empty means the store is whole.

    `nonfinite` is no damage: the store holds what was observed.
    """

    damage: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    groups: int
    arrays: int
    chunks: int
    bytes: int
    nonfinite: tuple[NonFinite, ...] = ()


@dataclass
class Survey:
    """A store of format 2 looked at whole.

    Parameters
    ----------
    location, backend
        Where it lies.
    root
        Its root; None where the document is damaged.
    groups
        Every group that the root lists or the tree has.
    damage, notes
        What was found.
    """

    location: Location
    backend: Backend
    root: Root | None
    groups: dict[str, GroupCheck] = field(default_factory=dict)
    damage: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


@takes_storage_options
def verify_store(
    address: Address,
    *,
    each: Each = one_by_one,
    storage_options: StorageOptions | None = None,
) -> Report:
    """Check a whole store.

    Parameters
    ----------
    each
        Like `map`: who compares the data files, which are dealt out in parts of about 64 MB.
        The report does not depend on it.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    StoreError
        There is no store, or it is of a newer format.
    """
    location = Location.parse(address)
    found = _format1(location) or survey(location, location.backend(), each=each)
    checks = found.groups.values()
    return Report(
        tuple(found.damage),
        tuple(found.notes),
        len(found.groups),
        sum(check.arrays for check in checks),
        sum(check.chunks for check in checks),
        sum(check.size for check in checks),
        _nonfinite(found),
    )


def _nonfinite(found: Survey) -> tuple[NonFinite, ...]:
    """What whole groups counted; damaged ones are named as such and not read."""
    from taqstore.arrays.plain import PlainGroups
    from taqstore.store.reader import open_store

    damaged = [finding.where for finding in found.damage]
    whole = [path for path in found.groups if not any(d.startswith(path) for d in damaged)]
    try:
        groups: Any = PlainGroups(open_store(found.location, chunks=None, checksum=True))
        return tuple(nonfinite(groups, whole))
    except TaqError:  # named already: the root is lost, or what a group needs outside of it
        return ()


def _format1(location: Location) -> Survey | None:
    """The findings of a store of format 1; None if it is none."""
    backend = location.backend()
    try:
        raw = backend.read(KEY)
        if raw is None or marker_of(parsed(raw, KEY)).get("format") != 1:
            return None
    except StoreError:
        return None  # the survey says what is wrong with it
    from taqstore.store.reader import open_store
    from taqstore.upkeep.verify_format1 import check_format1

    store = open_store(location, incomplete=True)
    check = check_format1(store)
    found = Survey(location, backend, store.root)
    found.damage, found.notes = check.damage, check.notes
    totals = GroupCheck("", backend, {}, arrays=check.arrays, chunks=check.chunks)
    totals.size = check.bytes
    found.groups = {path: GroupCheck(path, backend, {}) for path in store.paths}
    if store.paths:
        found.groups[store.paths[0]] = totals
    found.damage += [_bad_record(bad) for bad in store.bad_records]
    _leftovers(found)
    return found


def survey(location: Location, backend: Backend, *, each: Each = one_by_one) -> Survey:
    """Look at everything in a store of format 2.

    Parameters
    ----------
    backend
        Of the store; what is found is mended through the same one.
    each
        As in `verify_store`.

    Raises
    ------
    StoreError
        There is no store.
    """
    before = _raw(backend, KEY)
    root, damage = _root(backend, location)
    if root is not None and _is_foreign(backend, root):
        root, damage = None, [Finding(KEY, "the root of another store", key=KEY)]
    found = Survey(location, backend, root, damage=damage)
    listed = root.groups if root is not None else ()
    paths = []
    for path in sorted({*listed, *group_paths(backend)}):
        if path not in listed and _is_unfinished(backend, path):
            found.notes.append(Finding(path, "a group that was never finished", path))
        elif path not in listed and (stranger := _stranger(backend, path, root)):
            found.notes.append(Finding(path, f"{stranger}: no group of this store", path))
        else:
            paths.append(path)
    states: dict[str, _State] = {}
    for part in each(compared, _looked_at(found, paths, states, before)):
        found.groups[part.path].add(part)
    for path in paths:
        check = found.groups[path] = _settled(found, found.groups[path].end(), states[path])
        found.damage += check.damage
        if check.unwritten:
            what = f"{check.unwritten} of {check.total} items not written yet"
            found.notes.append(Finding(path, what, path))
    found.notes.sort(key=lambda note: note.group)
    _parents(found)
    _provenance(found, before)
    _leftovers(found)
    return found


def _looked_at(
    found: Survey, paths: Iterable[str], states: dict[str, _State], before: bytes | None
) -> Iterator[ShardPart]:
    """Look at groups; yields the parts of their data that are still to be compared.

    Parameters
    ----------
    states
        Gets the state of each group from before it was looked at.
    before
        The root's document, from before anything was read.
    """
    for path in paths:
        states[path] = before, _raw(found.backend, f"{path}/{KEY}")
        check = found.groups[path] = _check_of(found, path)
        yield from check.look().parts()


def _check_of(found: Survey, path: str, *, copies: bool = True) -> GroupCheck:
    root = found.root
    known = (root.copies if root is not None and copies else None) or {}
    return GroupCheck(path, found.backend, known, None if root is None else root.uuid)


def _settled(found: Survey, check: GroupCheck, state: _State) -> GroupCheck:
    """The findings of a group; again where a writer has changed it while it was looked at."""
    path = check.path
    for _ in range(_TRIES - 1):
        now = _raw(found.backend, KEY), _raw(found.backend, f"{path}/{KEY}")
        if not check.damage or now == state:
            break
        state, check = now, _check_of(found, path, copies=False).run()
    return check


def _own_record(backend: Backend, path: str) -> GroupRecord | None:
    """What a group's own document says it is; None where it cannot be told."""
    try:
        document = parsed(backend.read(f"{path}/{KEY}") or b"", path)
        check_seal(document, path)
        return GroupRecord.of(document, path)
    except StoreError:
        return None


def _stranger(backend: Backend, path: str, root: Root | None) -> str:
    """What tells that a group, which no root lists, came from elsewhere; or nothing."""
    record = _own_record(backend, path)
    return "" if record is None or root is None else record.stranger(path, root.uuid)


def _is_foreign(backend: Backend, root: Root) -> bool:
    """Whether all groups, of which there are several, agree that they are of another store."""
    paths = [*group_paths(backend), *([PROVENANCE] if backend.names(PROVENANCE) else ())]
    records = ((path, _own_record(backend, path)) for path in paths)
    uuids = [record.store.get("uuid") for path, record in records if record and record.path == path]
    return len(uuids) > 1 and len(set(uuids)) == 1 and root.uuid != uuids[0]


def _raw(backend: Backend, key: str) -> bytes | None:
    try:
        return backend.read(key)
    except StoreError:
        return None  # who looks at it names it


def _root(backend: Backend, location: Location) -> tuple[Root | None, list[Finding]]:
    try:
        raw = backend.read(KEY)
        if raw is None and not any(True for _ in group_paths(backend)):
            raise no_store(str(location))
        if raw is None:
            return None, [Finding(KEY, "missing", key=KEY)]
        return parsed_root(parsed(raw, KEY), str(location)), []
    except StoreError as error:
        if isinstance(error, NewerError) or not any(True for _ in group_paths(backend)):
            raise
        return None, [Finding(KEY, str(error).partition(";")[0], key=KEY)]


def group_paths(backend: Backend, base: str = "", depth: int = 0) -> Iterator[str]:
    """Paths of data groups in the tree, whatever the root says: where there are items."""
    for name in sorted(backend.names(base)):
        path = f"{base}/{name}" if base else name
        if depth >= _DEEPEST or (name == PROVENANCE and not base):
            continue
        try:
            below, items = backend.names(path), backend.names(f"{path}/items")
        except StoreError:
            continue  # behind a link; a group that the root lists is named where it is looked at
        if items:
            yield path
        elif below:
            yield from group_paths(backend, path, depth + 1)


def _is_unfinished(backend: Backend, path: str) -> bool:
    """Whether a writer was stopped while it made or dropped the group: the next one goes on."""
    if is_dropped(backend, path):
        return True
    return backend.size(f"{path}/{KEY}") is None and not holds_flags(backend, path)


def _parents(found: Survey) -> None:
    """Plain groups above data groups say nothing, and have to say it."""
    for above in sorted({above for path in found.groups for above in parents_of(path)}):
        key = f"{above}/{KEY}"
        try:
            raw = found.backend.read(key)
            if raw is not None and parsed(raw, key) == GROUP_DOCUMENT:
                continue
            what = "missing" if raw is None else "not what was written"
        except StoreError as error:
            what = str(error).partition(";")[0]
        found.damage.append(Finding(key, what, key=key))


def _provenance(found: Survey, before: bytes | None) -> None:
    if found.root is None or not found.root.records:
        return
    state = before, _raw(found.backend, f"{PROVENANCE}/{KEY}")
    found.damage += _settled(found, _check_of(found, PROVENANCE).run(), state).damage
    for record in each_record(found.backend, found.root.records):
        if isinstance(record, BadRecord):
            found.damage.append(_bad_record(record))
            continue
        try:
            validate("provenance", record)
        except TaqError as error:
            where = f"{PROVENANCE} record {record.get('number')}"
            found.damage.append(Finding(where, str(error), PROVENANCE))


def _bad_record(bad: BadRecord) -> Finding:
    return Finding(bad.key, f"provenance record {bad.number}: {bad.found}", PROVENANCE, bad.key)


def _leftovers(found: Survey) -> None:
    for leftover in find_leftovers(found.location, deep=True):
        safe = "may be deleted" if leftover.safe else "its writer may still live"
        found.notes.append(Finding(str(leftover.path), f"{leftover.what}; {safe}"))


def root_of(found: Survey) -> Root | None:
    """The root made again from what the groups know of it; None if none does."""
    for check in found.groups.values():
        if check.loaded is not None:
            identity = check.loaded.record.store
            root = Root(
                int(identity["format"]),
                str(identity["uuid"]),
                str(identity["created_by"]),
                groups=tuple(found.groups),
                digest=NEW,
            )
            return _with_records(root, found.backend)
    return None


def _with_records(root: Root, backend: Backend) -> Root:
    """The root after the records that there are: with the digest it had, if all are whole."""
    count = count_record_files(backend)
    for record in each_record(backend, count):
        known = record if isinstance(record, dict) else {"damaged": record.number}
        root = root.recording(known)
    return replace(root, records=count)

"""Who wrote what: append-only JSON records inside the store."""

from __future__ import annotations

import json
import platform
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crc32c import crc32c

from taqstore.errors import StoreError
from taqstore.metadata.group_record import GroupRecord
from taqstore.metadata.root import Root
from taqstore.metadata.staging import Staging
from taqstore.metadata.tree import Change, load_group, put_in_place, settled
from taqstore.names import PROVENANCE
from taqstore.place.backend import Backend

if TYPE_CHECKING:
    import zarr

_LIBRARIES = ("taqstore", "numpy", "zarr", "xarray")


def library_versions(names: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """Installed versions of the libraries that shaped a result, and of Python."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def make_record(
    command: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """One record as `provenance.schema.json` describes it; times are UTC."""
    return {
        "id": str(uuid.uuid4()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "parameters": dict(parameters),
        "inputs": [dict(entry) for entry in inputs],
        "groups": list(groups),
        "versions": library_versions(),
        "counts": dict(counts),
    }


def append_record(backend: Backend, root: Root, record: Mapping[str, Any]) -> Root:
    """Append one record; the root that counts it. The caller holds the store's lock.

    The group's documents follow from the number of records alone: damaged ones are made anew.

    Raises
    ------
    TaqError
        The record does not fit its schema.
    """
    from taqstore.files.schema import validate

    numbered = {**record, "number": root.records}
    validate("provenance", numbered)
    backend.write_all({_key(root.records): _encoded(json.dumps(numbered, sort_keys=True))})
    grown = root.recording(numbered)
    put_documents(backend, grown)
    return grown


def put_documents(backend: Backend, root: Root) -> None:
    """Put the documents of `provenance` in place, for as many records as the root counts."""
    try:
        loaded = load_group(backend, PROVENANCE, uuid=root.uuid)
    except StoreError:
        loaded = None
    staging = Staging(loaded)
    _create(staging.root, root.records)
    documents, _, document = staging.changed(PROVENANCE)
    record = GroupRecord(PROVENANCE, PROVENANCE, (), (), root.identity)
    if loaded is not None:
        record = settled(backend, loaded)
    change = Change(PROVENANCE, record, document, documents, {}, new=loaded is None)
    put_in_place(backend, [change])


def _create(root: zarr.Group, count: int) -> None:
    from zarr.codecs import Crc32cCodec

    group = root.require_group(PROVENANCE)
    group.create_array(
        "json",
        shape=(count,),
        chunks=(1,),
        dtype="string",
        compressors=[Crc32cCodec()],
        dimension_names=("record",),
        attributes={"description": "append-only provenance records as JSON"},
        overwrite=True,
    )


def _key(number: int) -> str:
    return f"{PROVENANCE}/json/c/{number}"


def _encoded(text: str) -> bytes:
    """One string as zarr's codecs vlen-utf8, crc32c leave it."""
    raw = text.encode()
    content = struct.pack("<II", 1, len(raw)) + raw
    return content + struct.pack("<I", crc32c(content))


_FIELDS = {
    "id": str,
    "time": str,
    "command": str,
    "parameters": dict,
    "inputs": list,
    "groups": list,
    "versions": dict,
    "counts": dict,
}
EMPTY_RECORD = _encoded("")
"""What stands in place of a record that was set aside; readers pass over it."""


@dataclass(frozen=True)
class BadRecord:
    """A provenance record that cannot be read: its number, its key, and what is wrong."""

    number: int
    key: str
    found: str


def count_record_files(backend: Backend) -> int:
    """How many records there are, told by their files: where the root is lost."""
    names, count = set(backend.names(f"{PROVENANCE}/json/c")), 0
    while str(count) in names:
        count += 1
    return count


def each_record(backend: Backend, count: int) -> Iterator[dict[str, Any] | BadRecord]:
    """All finished records, oldest first; damaged ones are told, not raised."""
    for number in range(count):
        try:
            raw = backend.read(_key(number))
            if raw == EMPTY_RECORD:
                continue
            record = _decoded(raw)
            if record.get("number", number) != number:
                raise ValueError(f"this is record {record['number']}")
        except (StoreError, ValueError) as error:
            yield BadRecord(number, _key(number), str(error))
        else:
            yield record


def _decoded(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise ValueError("missing")
    if len(raw) < 12 or crc32c(raw[:-4]) != struct.unpack("<I", raw[-4:])[0]:
        raise ValueError("its checksum does not match")
    if struct.unpack("<II", raw[:8]) != (1, len(raw) - 12):
        raise ValueError("not one string")
    try:
        record = json.loads(raw[8:-4])
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    for name, kind in _FIELDS.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"no {name}")
    if not all(isinstance(entry, dict) and "name" in entry for entry in record["inputs"]):
        raise ValueError("an input without a name")
    return record


def describe_input(path: Path) -> dict[str, Any]:
    """An input of a run: its name (never its folder), size and modification time."""
    if path.is_dir():
        return {"name": path.name, "kind": "folder"}
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
    return {"name": path.name, "kind": "file", "bytes": stat.st_size, "modified": modified}

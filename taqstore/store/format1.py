"""Stores of format 1: read as they are.

A flag is a file of one byte and its checksum; nothing tells which files an item owns. Documents
carry no seal, so that they are taken as they lie there, once they are of the format and claim no
more than a run has.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from crc32c import crc32c

from taqstore.errors import StoreError, problem
from taqstore.items.claims import checked_layout
from taqstore.layout.array_documents import check_array, dimensions, is_coordinate
from taqstore.layout.coordinate_files import check_files, chunk_keys
from taqstore.metadata.group_record import GroupRecord, claim_of
from taqstore.metadata.root import KEY, MOST_GROUPS, MOST_RECORDS
from taqstore.metadata.sealed import (
    Document,
    checked_path,
    checksum,
    damaged,
    encoded,
    marker_of,
    parsed,
)
from taqstore.metadata.tree import Loaded
from taqstore.names import KINDS, PROVENANCE, WRITTEN
from taqstore.place.backend import Backend

SPARSE = ("output",)
"""Variables that hold only some of the shards of a flagged item."""
_DEEPEST, _MOST_NODES = 6, 1 << 16


@dataclass
class Tree:
    """Metadata documents of a store of format 1, by path; and what cannot be read of them."""

    documents: dict[str, Document] = field(default_factory=dict)
    damage: dict[str, StoreError] = field(default_factory=dict)

    def groups(self) -> tuple[str, ...]:
        """Paths of data groups; those of format 2 too, in a store that is being upgraded."""
        found = [p for p, d in self.documents.items() if marker_of(d).get("kind") in KINDS]
        # What cannot be read may be a group: it is not passed over.
        above = tuple(f"{path}/" for path in found)
        found += [path for path in self.damage if not path.startswith(above)]
        if len(found) > MOST_GROUPS:
            raise damaged(KEY, f"{len(found)} groups")
        return tuple(sorted(found))

    def members(self, path: str) -> dict[str, Document]:
        """Documents of the arrays of a group, by name."""
        base = f"{path}/"
        return {
            name.removeprefix(base): document
            for name, document in self.documents.items()
            if name.startswith(base) and document.get("node_type") == "array"
        }


def tree_of(backend: Backend, copies: Mapping[str, Document] | None = None) -> Tree:
    """All metadata of a store: the root's copy of it where there is one, else as it lies there."""
    tree = Tree()
    if copies is None:
        _walk(backend, tree, "", 0)
        return tree
    if len(copies) > _MOST_NODES:
        raise damaged(KEY, f"{len(copies)} copies")
    tree.documents = {checked_path(path, KEY): doc for path, doc in copies.items()}
    return tree


def _walk(backend: Backend, tree: Tree, base: str, depth: int) -> None:
    for name in sorted(backend.names(base)) if depth < _DEEPEST else ():
        path = f"{base}/{name}" if base else name
        if len(tree.documents) > _MOST_NODES:
            raise damaged(base or KEY, f"more than {_MOST_NODES} nodes")
        if name in ("c", KEY) or path == PROVENANCE:
            continue
        try:
            raw = backend.read(f"{path}/{KEY}")
            document = None if raw is None else parsed(raw, f"{path}/{KEY}")
        except StoreError as error:
            tree.damage[path] = error
            continue
        if document is not None:
            tree.documents[path] = document
        if document is None or document.get("node_type") != "array":
            _walk(backend, tree, path, depth + 1)


def load_group(backend: Backend, path: str, tree: Tree) -> Loaded:
    """A group of format 1, its coordinates read.

    Raises
    ------
    StoreError
        It is not of the format, or claims more than any group has.
    """
    for name, error in tree.damage.items():
        if name == path or name.startswith(f"{path}/"):
            raise error
    document, marker = tree.documents[path], marker_of(tree.documents[path])
    if marker.get("version") != 1 or document.get("zarr_format") != 3:
        what = f"a group of version {marker.get('version')!r}, which this taqstore does not know"
        raise StoreError(problem(what, where=path, remedy="upgrade taqstore"))
    members = tree.members(path)
    for name, member in members.items():
        check_array(member, f"{path}/{name}")
    content = {f"{path}/{name}/{KEY}": encoded(member) for name, member in members.items()}
    coordinates = {n: m for n, m in members.items() if is_coordinate(document, n, m)}
    files = _coordinate_files(backend, path, coordinates)
    record = GroupRecord.of(
        {
            "attributes": {
                "taqstore": {
                    **marker,
                    "path": path,
                    "store": {},
                    "documents": {name: checksum(member) for name, member in members.items()},
                    "files": {key: claim_of(raw) for key, raw in files.items()},
                }
            }
        },
        path,
    )
    content |= {f"{path}/{key}": raw for key, raw in files.items()}
    content[f"{path}/{KEY}"] = encoded(document)
    return Loaded(path, document, record, content)


def _coordinate_files(
    backend: Backend, path: str, coordinates: Mapping[str, Document]
) -> dict[str, bytes]:
    labels = {name: document for name, document in coordinates.items() if name != WRITTEN}
    check_files(labels, path)
    found = {}
    for name, document in labels.items():
        for key in chunk_keys(name, document):
            raw = backend.read(f"{path}/{key}")
            if raw is not None:
                found[key] = raw
    return found


def absent_labels(backend: Backend, path: str, tree: Tree) -> Iterator[tuple[str, str, bool]]:
    """What coordinates of a group lack: where, what, and whether it cannot be meant.

    Format 1 left out what is 0 or '' throughout, so that such a file may be lost, or not.
    """
    document, members = tree.documents[path], tree.members(path)
    for name in str(document["attributes"].get("coordinates", "")).split():
        if name not in members:
            yield f"{path}/{name}/{KEY}", "missing", True
    for name, member in members.items():
        if name == WRITTEN or not is_coordinate(document, name, member):
            continue
        labels = dimensions(member) == (name,) and max(member["shape"], default=0) > 1
        for key in chunk_keys(name, member):
            if backend.size(f"{path}/{key}") is None:
                lost = labels or member["data_type"].startswith("float")
                what = "missing" if lost else "missing: it reads as 0 or '', which may be meant"
                yield f"{path}/{key}", what, lost


def read_mask(backend: Backend, loaded: Loaded) -> np.ndarray:
    """The group's completion mask, bool, over its item dims.

    Only flagged items have a file, so the names that are there are read, not all there could be.

    Raises
    ------
    StoreError
        A flag's checksum does not match, or the group claims more than any has.
    """
    _, shape = checked_layout(loaded)
    out = np.zeros(shape, dtype=bool)
    base = f"{loaded.path}/{WRITTEN}/c"
    # The marker tells the chunks, not the array: an upgrade may have replaced its document.
    sizes = loaded.record.item_size
    chunks = [min(n, size) or 1 for n, size in zip(shape, sizes, strict=True)]
    for number in _numbers(backend, base, len(shape)):
        key = "/".join((base, *map(str, number)))
        raw = backend.read(key)
        if raw is None:
            continue
        starts = [p * c for p, c in zip(number, chunks, strict=True)]
        region = tuple(
            slice(s, min(s + c, n)) for s, c, n in zip(starts, chunks, shape, strict=True)
        )
        block = _flags(raw, chunks, key)
        out[region] = block[tuple(slice(0, max(0, r.stop - r.start)) for r in region)]
    return out


def _numbers(backend: Backend, base: str, depth: int) -> Iterator[tuple[int, ...]]:
    """Places of the files of an array that are there; foreign files are passed over."""
    for name in backend.names(base):
        if not name.isdecimal() or len(name) > 18:
            continue
        if depth == 1:
            yield (int(name),)
            continue
        for rest in _numbers(backend, f"{base}/{name}", depth - 1):
            yield (int(name), *rest)


def _flags(raw: bytes, shape: list[int], where: str) -> np.ndarray:
    content = raw[:-4]
    whole = len(raw) > 4 and crc32c(content) == struct.unpack("<I", raw[-4:])[0]
    if not whole or len(content) != np.prod(shape):
        remedy = "delete this file and run again with --resume"
        raise StoreError(problem("damaged completion flag", where=where, remedy=remedy))
    return np.frombuffer(content, dtype=bool).reshape(shape)


def count_records(backend: Backend) -> int:
    """Number of provenance records; 0 where their array cannot be read."""
    try:
        raw: Any = backend.read(f"{PROVENANCE}/json/{KEY}")
        (count,) = json.loads(raw or b"{}").get("shape", (0,))
        return max(0, min(int(count), MOST_RECORDS))
    except (StoreError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return 0

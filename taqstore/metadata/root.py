"""The root document: which store this is, which groups it has, and a copy of all metadata.

It is written whole under the store's lock. While a structure is being changed it holds no copy, so
that a copy is never out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from taqstore.errors import NewerError, StoreError, problem
from taqstore.metadata.near import near_path
from taqstore.metadata.sealed import (
    Document,
    check_seal,
    checked_path,
    damaged,
    encoded,
    marker_of,
    parsed,
    sealed,
)
from taqstore.names import FORMAT_VERSION
from taqstore.place.backend import Backend

KEY = "zarr.json"
NEW = "new"
"""The digest of a store without a record."""
MOST_GROUPS, MOST_RECORDS = 1 << 11, 1 << 16
"""Of one store; more are no calibration run, and would take all of a command's time."""
GROUP_DOCUMENT: Document = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


@dataclass(frozen=True)
class Root:
    """What the root document says.

    Parameters
    ----------
    format, uuid, created_by
        Of the store.
    groups
        Paths of its data groups; one that the tree has not is lost, not absent.
    records
        Number of provenance records.
    digest
        Changes with every recorded write.
    copies
        Every other metadata document by path, where no structure is being changed.
    """

    format: int
    uuid: str
    created_by: str
    groups: tuple[str, ...] = ()
    records: int = 0
    digest: str = ""
    copies: Mapping[str, Document] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """What every group keeps a copy of."""
        return {"format": self.format, "uuid": self.uuid, "created_by": self.created_by}

    @property
    def document(self) -> Document:
        """The sealed document."""
        marker = {
            **self.identity,
            "groups": list(self.groups),
            "records": self.records,
            "digest": self.digest,
        }
        document = {**GROUP_DOCUMENT, "attributes": {**self.attributes, "taqstore": marker}}
        if self.copies is not None:
            document["consolidated_metadata"] = {
                "kind": "inline",
                "must_understand": False,
                "metadata": dict(self.copies),
            }
        return sealed(document)

    def listing(self, paths: Iterable[str]) -> Root:
        """The root with more groups, and without copies."""
        return replace(self, groups=tuple(sorted({*self.groups, *paths})), copies=None)

    def recording(self, record: Mapping[str, Any]) -> Root:
        """The root after one more provenance record."""
        text = f"{self.digest}\n{json.dumps(record, sort_keys=True)}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return replace(self, records=self.records + 1, digest=digest, copies=None)


def read_root(backend: Backend, where: str) -> Root:
    """The root of a store.

    Raises
    ------
    StoreError
        There is no store, it is of another kind or a newer format, or its document is damaged.
    """
    raw = backend.read(KEY)
    if raw is None:
        raise no_store(where)
    return parsed_root(parsed(raw, f"{where} {KEY}"), where)


def no_store(where: str) -> StoreError:
    """The error of a place where there is none: it names what was meant, where that can be seen."""
    remedy = near_path(where, stores=True) or "make one with taqstore generate or taqstore ingest"
    return StoreError(problem("no store here", where=where, remedy=remedy))


def parsed_root(document: Document, where: str) -> Root:
    """The root that a document describes; raises as `read_root`."""
    marker = marker_of(document)
    if document.get("zarr_format") != 3 or document.get("node_type") != "group":
        what, near = "not a Zarr v3 hierarchy", near_path(where, stores=True)
        raise StoreError(problem(what, where=where, remedy=near or "see taqstore ingest"))
    if type(marker.get("format")) is not int or marker["format"] < 1:
        what, near = "a Zarr store, but not a taqstore", near_path(where, stores=True)
        raise StoreError(problem(what, where=where, remedy=near or "see taqstore ingest"))
    if marker["format"] > FORMAT_VERSION:
        raise NewerError(
            problem(
                f"store format {marker['format']} is newer than this taqstore",
                where=where,
                found=f"understood: up to {FORMAT_VERSION}",
                remedy="upgrade taqstore",
            )
        )
    if marker["format"] > 1:
        check_seal(document, f"{where} {KEY}")
    return _root(document, marker, where)


def _root(document: Document, marker: Document, where: str) -> Root:
    inline = document.get("consolidated_metadata") or {}
    attributes = {k: v for k, v in document["attributes"].items() if k != "taqstore"}
    groups, records = marker.get("groups", []), marker.get("records", 0)
    place = f"{where} {KEY}"
    if not isinstance(groups, list) or len(groups) > MOST_GROUPS:
        raise damaged(place, "groups that no store has")
    if type(records) is not int or not 0 <= records <= MOST_RECORDS:
        raise damaged(place, f"{records} provenance records")
    copies = inline.get("metadata") if isinstance(inline, dict) else None
    if inline and not (isinstance(copies, dict) and all(map(_is_object, copies.values()))):
        raise damaged(place, "copies that are none")
    try:
        return Root(
            format=marker["format"],
            uuid=str(marker["uuid"]),
            created_by=str(marker["created_by"]),
            groups=tuple(sorted({checked_path(path, place) for path in groups})),
            records=records,
            digest=str(marker.get("digest", "")),
            copies=copies,
            attributes=attributes,
        )
    except KeyError as error:
        raise damaged(place, f"a root without {error}") from error


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def without_copies(backend: Backend, where: str) -> Root:
    """The root, after it holds no copies any more: before any document below it changes.

    Readers believe the copies, while there are any. The caller holds the store's lock.
    """
    root = read_root(backend, where)
    if root.copies is not None:
        root = replace(root, copies=None)
        write_root(backend, root)
    return root


def copies_now(backend: Backend) -> Mapping[str, Document] | None:
    """The copies in the root as it is now; None where it has none, or is damaged."""
    try:
        return read_root(backend, "").copies
    except StoreError:
        return None


def write_root(backend: Backend, root: Root) -> None:
    """Replace the root document; it is durable afterwards. The caller holds the store's lock."""
    backend.write_all({KEY: encoded(root.document)})
    backend.flush()

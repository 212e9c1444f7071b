"""What a group says of itself: the documents and files that belong to it, each with a checksum.

The group's own document carries the record, under a seal. While a structure changes, `coming` names
what documents and files are about to be: until the change is done, either is whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from taqstore.metadata.sealed import Document, checked_path, checksum, damaged, marker_of, sealed

VERSION = 2
_MOST_DOCUMENTS, _MOST_FILES = 512, 1 << 17
Claim = tuple[int, int]


def claim_of(content: bytes) -> Claim:
    """Size and crc32 of a file.

    Not crc32c: these files end in their own crc32c, and over both together it is the same for all.
    """
    return len(content), zlib.crc32(content)


@dataclass(frozen=True)
class GroupRecord:
    """The record of one group.

    Parameters
    ----------
    path, kind, item_dims, item_size
        As of the template: a document in another place is not the one that belongs there.
    store
        Copy of what the root says of the store, from which the root can be made again.
    documents
        Checksum of each array's and child group's document, by path below the group.
    files
        Size and crc32 of coordinates, closed flags and closed item records, by key below it.
    coming
        The same of what a change under way puts in their place: ``(documents, files)``.
    """

    path: str
    kind: str
    item_dims: tuple[str, ...]
    item_size: tuple[int, ...]
    store: Mapping[str, Any]
    documents: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Claim] = field(default_factory=dict)
    coming: tuple[Mapping[str, int], Mapping[str, Claim]] = ({}, {})

    @classmethod
    def of(cls, document: Document, where: str) -> GroupRecord:
        """The record in a group's sealed document; StoreError if it cannot be read."""
        marker = marker_of(document)
        try:
            coming = marker.get("coming", {})
            record = cls(
                path=checked_path(str(marker["path"]), where),
                kind=str(marker["kind"]),
                item_dims=tuple(map(str, marker["item_dims"])),
                item_size=tuple(map(_whole, marker["item_size"])),
                store=dict(marker["store"]),
                documents=_sums(marker["documents"], where),
                files=_claims(marker["files"], where),
                coming=(
                    _sums(coming.get("documents", {}), where),
                    _claims(coming.get("files", {}), where),
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(where, f"a record without {error}") from error
        if len(record.paths) > _MOST_DOCUMENTS or len(record.keys) > _MOST_FILES:
            raise damaged(where, f"{len(record.paths)} documents, {len(record.keys)} files")
        if len(record.item_dims) != len(record.item_size) or 0 in record.item_size:
            raise damaged(where, f"items of {record.item_size} along {record.item_dims}")
        return record

    def stranger(self, path: str, uuid: str | None) -> str:
        """What tells that it belongs to another group or store than it is found in; or nothing."""
        if self.path != path:
            return f"the document of {self.path}"
        if uuid is not None and self.store.get("uuid") != uuid:
            return "the document of another store"
        return ""

    def marker(self) -> Document:
        """The attribute `taqstore`, still without a seal."""
        documents, files = self.coming
        coming = {"documents": dict(documents), "files": _listed(files)}
        return {
            "path": self.path,
            "kind": self.kind,
            "version": VERSION,
            "item_dims": list(self.item_dims),
            "item_size": list(self.item_size),
            "store": dict(self.store),
            "documents": dict(self.documents),
            "files": _listed(self.files),
            **({"coming": coming} if documents or files else {}),
        }

    def in_document(self, document: Document) -> Document:
        """A group's document with this record, sealed."""
        return sealed(
            {**document, "attributes": {**document["attributes"], "taqstore": self.marker()}}
        )

    def with_coming(
        self, documents: Mapping[str, Document], files: Mapping[str, bytes]
    ) -> GroupRecord:
        """The record while these documents and files are being put in place."""
        sums = {path: checksum(document) for path, document in documents.items()}
        return replace(
            self, coming=(sums, {key: claim_of(content) for key, content in files.items()})
        )

    def arrived(self) -> GroupRecord:
        """The record once all that was coming is in its place."""
        documents, files = self.coming
        return replace(
            self,
            documents={**self.documents, **documents},
            files={**self.files, **files},
            coming=({}, {}),
        )

    def fits_document(self, path: str, found: int) -> bool:
        """Whether a document of that checksum is the one recorded, or the one that is coming."""
        return found in (self.documents.get(path), self.coming[0].get(path))

    def fits_file(self, key: str, content: bytes) -> bool:
        """Whether a file is the one recorded, or the one that is coming."""
        found = claim_of(content)
        return found in (self.files.get(key), self.coming[1].get(key))

    def expects(self, key: str) -> bool:
        """Whether the file has to be there: one that is only coming may not have come."""
        return key in self.files

    @property
    def keys(self) -> tuple[str, ...]:
        """Files that belong to the group, there or coming."""
        return tuple({**self.files, **self.coming[1]})

    @property
    def paths(self) -> tuple[str, ...]:
        """Documents that belong to the group, there or coming."""
        return tuple({**self.documents, **self.coming[0]})


def _claims(stored: Mapping[str, Any], where: str) -> dict[str, Claim]:
    return {
        checked_path(key, where): (_whole(size), _whole(crc)) for key, (size, crc) in stored.items()
    }


def _sums(stored: Mapping[str, Any], where: str) -> dict[str, int]:
    return {checked_path(path, where): _whole(crc) for path, crc in stored.items()}


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"a number where {str(value)[:40]!r} stands")
    return value


def _listed(files: Mapping[str, Claim]) -> dict[str, list[int]]:
    return {key: list(claim) for key, claim in files.items()}

"""JSON documents that carry a checksum of themselves, and how far a document is trusted.

The metadata of a store is JSON, which no codec protects. A root or group document holds `seal`, the
crc32c of everything else in it, and the checksums of the documents and files that belong to it.
Checksums are taken of the parsed content, so that a document means the same wherever it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from crc32c import crc32c

from taqstore.errors import StoreError, TaqError, problem

MOST_BYTES = 64 << 20
"""Of one metadata document; the consolidated document of 20,000 groups has 60 MB."""
_DEEPEST = 100
_LONGEST_PATH = 1000
_REMEDY = "see taqstore verify, then taqstore repair"
Document = dict[str, Any]
_NONSENSE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


_LIKE_JSON = (
    orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)
# Numbers that `json` may write otherwise: those that have an exponent, here or there.
_OTHERWISE = re.compile(rb"\d(?:e-?\d+|\.0000\d*|\d{16}(?:\.\d+)?),?\n")
_SUMS: dict[bytes, int] = {}
_MOST_SUMS = 1 << 11


def checksum(document: Mapping[str, Any]) -> int:
    """crc32c of a JSON document's content, whatever the order of its keys and its white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return int(crc32c(text.encode()))


def checksum_of(raw: bytes, where: str) -> int:
    """The checksum of a document as it lies there; raises as `parsed`.

    Groups are read again and again while they are written: a document is parsed once.
    """
    found = _SUMS.get(raw)
    if found is None:
        found = checksum(parsed(raw, where))
        if len(_SUMS) >= _MOST_SUMS:
            _SUMS.clear()
        _SUMS[raw] = found
    return found


def encoded(document: Mapping[str, Any]) -> bytes:
    """A document as it is written to a store."""
    text = _like_json(document)
    return json.dumps(document, indent=2).encode() if text is None else text


def _like_json(document: Mapping[str, Any]) -> bytes | None:
    """What `json` writes, by orjson; None where it may differ.

    `json` indents in Python: 4 ms for a root of 60 KB, 1 ms here.
    """
    try:
        text = orjson.dumps(document, option=_LIKE_JSON)
    except TypeError:
        return None
    # NaN would be null.
    same = text.isascii() and b"null" not in text and not _OTHERWISE.search(text)
    return text if same else None


def parsed(raw: bytes, where: str) -> Document:
    """A metadata document, read without trust.

    Raises
    ------
    StoreError
        It is too large, nests too deep, or is not a JSON object.
    """
    if len(raw) > MOST_BYTES:
        raise damaged(where, f"{len(raw)} bytes of metadata")
    try:
        found = json.loads(raw)
        # Nothing nests deeper than it opens: most documents open few, and need no search.
        opened = raw.count(b"{") + raw.count(b"[")
        too_deep = opened > _DEEPEST and _depth(found) > _DEEPEST
    except (ValueError, RecursionError) as error:
        raise damaged(where, str(error) or "nested too deep") from error
    if too_deep or not isinstance(found, dict):
        raise damaged(where, "nested too deep" if too_deep else "no JSON object")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        depth += 1
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, (dict, list))
        ]
    return depth


def checked_path(path: Any, where: str) -> str:
    """A path or key that a document names, if it can be one below what names it.

    Raises
    ------
    StoreError
        It is no string, leads elsewhere, or is longer than any that is written.
    """
    good = isinstance(path, str) and len(path) <= _LONGEST_PATH and path.isprintable()
    if good and all(part not in ("", ".", "..") for part in path.split("/")):
        return str(path)
    raise damaged(where, f"the name {str(path)[:80]!r}")


def marker_of(document: Mapping[str, Any]) -> Document:
    """The attribute `taqstore` of a group document; empty where there is none."""
    attributes = document.get("attributes")
    marker = attributes.get("taqstore") if isinstance(attributes, dict) else None
    return marker if isinstance(marker, dict) else {}


def sealed(document: Mapping[str, Any]) -> Document:
    """The document with a fresh seal in its marker."""
    marker = {k: v for k, v in marker_of(document).items() if k != "seal"}
    bare = {**document, "attributes": {**document["attributes"], "taqstore": marker}}
    whole = {**marker, "seal": checksum(bare)}
    return {**bare, "attributes": {**bare["attributes"], "taqstore": whole}}


def check_seal(document: Mapping[str, Any], where: str) -> None:
    """Refuse a document that is not what was written, by a StoreError."""
    if document != sealed(document):
        raise damaged(where, "its seal does not match")


@contextmanager
def foreign(where: str) -> Iterator[None]:
    """Refuse what a library makes nothing of: a document that is whole, and not of the format.

    Raises
    ------
    StoreError
        With what the library said.
    """
    try:
        yield
    except TaqError:
        raise
    except _NONSENSE as error:
        found = f"{type(error).__name__}: {error}"
        what, remedy = "not of this format", "see schemas/README.md"
        raise StoreError(problem(what, where=where, found=found, remedy=remedy)) from error


def damaged(where: str, found: str, what: str = "damaged metadata") -> StoreError:
    """The refusal of anything that is not what was written."""
    return StoreError(problem(what, where=where, found=found, remedy=_REMEDY))

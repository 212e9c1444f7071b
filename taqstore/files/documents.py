"""JSON documents written whole or not at all, checked first, with one large member streamed.

A *document* is a mapping whose values are plain JSON, except that vectors may be NumPy arrays and
a top-level object may be a `Members`, whose entries are made only when they are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from taqstore.files.remote import output_path
from taqstore.files.schema import validate, validate_member
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize

Document = Mapping[str, Any]

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2
_INDENT = b"  "
# Numbers that orjson writes in other words than Python, each at the end of a line: below 0.0001.
_SMALL = re.compile(rb"(?:(?<= )|^)-?(?:0\.0000\d+|\d(?:\.\d+)?e-\d)(?=,?(?:\n|$))")


@dataclass(frozen=True)
class Members:
    """A JSON object whose entries are made one at a time.

    Parameters
    ----------
    make
        Called for each pass; yields ``(key, value)`` in the order to write.
    """

    make: Callable[[], Iterator[tuple[str, Any]]]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self.make()


def write_document(
    path: Path | str, schema_name: str, document: Document, *, force: bool = False
) -> Summary:
    """Write a document as UTF-8 JSON once all of it fits its schema.

    Everything goes to a temporary file beside `path`, is flushed to disk and then renamed. The
    bytes are those of ``json.dump(indent=2)``, as the source's scripts write; floats have the
    fewest digits that give the same float64 again.

    Parameters
    ----------
    path
        The target file.
    schema_name
        Name of the schema, see `taqstore.files.schema.schema_names`.
    document
        What to write. Entries of a `Members` are validated and written one by one.
    force
        Replace an existing file.

    Raises
    ------
    DocumentError
        The document does not fit the schema, or holds NaN or an infinity.
    TaqError
        The target exists and `force` is false, or the disk refuses.
    """
    target = output_path(path)
    with whole_file(target, force=force) as fresh, fresh.open("wb") as file:
        validate(schema_name, _envelope(document), where=target.name)
        _write(file, document, schema_name, target.name)
    return summarize(target)


def _envelope(document: Document) -> dict[str, Any]:
    return {k: {} if isinstance(v, Members) else v for k, v in document.items()}


def _write(file: BinaryIO, document: Document, schema_name: str, where: str) -> None:
    file.write(b"{")
    for count, (key, value) in enumerate(document.items()):
        file.write(b",\n" if count else b"\n")
        file.write(_INDENT + orjson.dumps(key) + b": ")
        if isinstance(value, Members):
            _write_members(file, key, value, schema_name, where)
        else:
            file.write(_indented(value, 1))
    file.write(b"\n}")


def _write_members(
    file: BinaryIO, member: str, members: Members, schema_name: str, where: str
) -> None:
    file.write(b"{")
    for count, (key, value) in enumerate(members):
        validate_member(schema_name, member, key, value, where=where)
        file.write(b",\n" if count else b"\n")
        file.write(_INDENT * 2 + orjson.dumps(key) + b": ")
        file.write(_indented(value, 2))
    file.write(b"\n" + _INDENT + b"}")


def _indented(value: Any, depth: int) -> bytes:
    """As ``json.dump(indent=2)`` has it, which the source's scripts write."""
    text = _SMALL.sub(_as_python, orjson.dumps(value, option=_OPTIONS))
    return text.replace(b"\n", b"\n" + _INDENT * depth)


def _as_python(number: re.Match[bytes]) -> bytes:
    return repr(float(number[0])).encode()

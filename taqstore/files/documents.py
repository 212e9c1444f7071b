"""JSON documents written whole or not at all, checked first, with one large member streamed.

A *document* is a mapping whose values are plain JSON, except that vectors may be NumPy arrays and
a top-level object may be a `Members`, whose entries are made only when they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from taqstore.files.remote import output_path
from taqstore.files.schema import validate, validate_member
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize

Document = Mapping[str, Any]

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2
_INDENT = b"  "
# Between these Python writes a float without an exponent, and orjson the same digits.
_PLAIN_FROM, _PLAIN_BELOW = 1e-4, 1e16


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


def _indented(value: Any, depth: int) -> memoryview:
    """As ``json.dump(indent=2)`` has it at this depth, which the source's scripts write."""
    around = _spelled(value, depth)
    for _ in range(depth):
        around = [around]
    text = orjson.dumps(around, option=_OPTIONS)
    # Lists around it indent it: cheaper than a second look at every line.
    before = sum(len(b"[\n") + len(_INDENT) * (level + 1) for level in range(depth))
    after = sum(len(b"\n]") + len(_INDENT) * level for level in range(depth))
    return memoryview(text)[before : len(text) - after]


def _spelled(value: Any, depth: int) -> Any:
    """The value, with Python's spelling where orjson has another."""
    if isinstance(value, float | np.floating):
        plain = float(value)
        return _as_python(plain) if _is_odd(plain) else plain
    if isinstance(value, Mapping):
        return {key: _spelled(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        if value.ndim == 1 and value.dtype.kind in "fiu":
            return orjson.Fragment(_vector(value, _INDENT * (depth + 1)))
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_spelled(entry, depth + 1) for entry in value]
    return value


def _is_odd(values: Any) -> Any:
    """Where Python may write an exponent: a bool of a float, a mask of an array."""
    size = abs(values)
    return (size >= _PLAIN_BELOW) | ((size < _PLAIN_FROM) & (size > 0))


def _as_python(number: float) -> orjson.Fragment:
    return orjson.Fragment(repr(number).encode())


def _vector(vector: np.ndarray, indent: bytes) -> bytes:
    """A vector of numbers, one a line: millions of them pass here, so that few are looked at."""
    if not vector.size:
        return b"[]"
    wide = np.ascontiguousarray(vector, np.float64 if vector.dtype.kind == "f" else None)
    text, seam = orjson.dumps(wide, option=_OPTIONS ^ orjson.OPT_INDENT_2)[1:-1], b",\n" + indent
    odd = np.flatnonzero(_is_odd(wide)) if wide.dtype.kind == "f" else ()
    if len(odd):
        numbers = text.split(b",")
        for index in odd:
            numbers[index] = repr(float(wide[index])).encode()
        lines = seam.join(numbers)
    else:
        lines = text.replace(b",", seam)
    return b"[\n" + indent + lines + b"\n" + indent[: -len(_INDENT)] + b"]"

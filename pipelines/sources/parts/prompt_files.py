"""Prompts out of a text or CSV file: every one whole and in its place, or the line is named.

A line ends with LF, CR LF or CR, one way in a file where CR alone is used; nothing else ends one,
whatever Unicode calls a line separator.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taqstore import errors
from taqstore.errors import SourceError
from taqstore.files.refusal import what_it_is

from .json_fields import checked_text

REMEDY = "give a .txt file with one prompt per line, or a .csv file with a prompt column"
_PROMPT, _IMAGE = "prompt", "image_id"
_DELIMITERS = (",", ";", "\t")
# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MOST_NAMED = 5
_OPEN = "quotes that do not close"


@dataclass(frozen=True)
class Prompts:
    """Prompts in the order of images, and what a user should know of the file they are from."""

    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_prompts(path: Path, *, count: int | None = None) -> Prompts:
    """Prompts of a text file (one per line) or of the `prompt` column of a CSV file.

    Blank lines are no prompts, and named. Rows of a CSV file that have an `image_id` are put in its
    order where ids are 0 to n - 1. UTF-8, or UTF-16 and UTF-32 with their mark.

    Parameters
    ----------
    count
        How many are needed; None: some.

    Raises
    ------
    SourceError
        It is another file, or not `count` prompts; a line cannot be taken, which is named.
    """
    if path.suffix.lower() not in (".txt", ".csv"):
        raise _refused(path, "not a .txt or .csv file", found=what_it_is(path))
    text = _decoded(path)
    lines = _lines(path, text)
    read = _table if path.suffix.lower() == ".csv" else _plain
    found = read(path, lines)
    for number, prompt in enumerate(found.texts):
        checked_text(prompt, where=f"{path}: prompt {number}")
    if not found.texts or count not in (None, len(found.texts)):
        wanted = "some" if count is None else count
        raise _refused(path, f"{wanted} prompts are needed", found=str(len(found.texts)))
    return found


def _refused(path: Path, what: str, *, line: int = 0, found: str = "") -> SourceError:
    where = f"{path}: line {line}" if line else str(path)
    return SourceError(errors.problem(what, where=where, found=found, remedy=REMEDY))


def _decoded(path: Path) -> str:
    """The text of a file, line ends as they are."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        found = error.strerror or str(error)
        raise _refused(path, "cannot be read", found=found) from error
    if not raw.strip():
        raise _refused(path, "the file is empty")
    mark, encoding = next(((m, e) for m, e in _MARKS if raw.startswith(m)), (b"", "utf-8"))
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: len(mark) + error.start].count(b"\n") + 1
        found = what_it_is(path) or f"{error.reason} at byte {len(mark) + error.start}"
        raise _refused(path, f"not {encoding}", line=line, found=found) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise _refused(path, "a zero character: binary, or UTF-16 without its mark", line=line)
    if "\ufeff" in text:
        line = text[: text.index("\ufeff")].count("\n") + 1
        raise _refused(path, "a byte order mark within the text: two files in one", line=line)
    return text


def _lines(path: Path, text: str) -> list[str]:
    """Lines with their ends."""
    if "\r" in text.replace("\r\n", ""):
        if "\n" in text:
            place = next(i for i, c in enumerate(text) if c == "\r" and text[i + 1 : i + 2] != "\n")
            what = "a carriage return within a line, in a file whose lines end otherwise"
            raise _refused(path, what, line=text[:place].count("\n") + 1)
        return [f"{line}\r" for line in text.split("\r")]
    return [f"{line}\n" for line in text.split("\n")]


def _plain(path: Path, lines: list[str]) -> Prompts:
    texts = [line.rstrip("\r\n") for line in lines]
    blank = [number for number, text in enumerate(texts, 1) if not text.strip()]
    kept = tuple(text for text in texts if text.strip())
    return Prompts(kept, tuple(_blank_note(path, blank, len(texts))))


def _blank_note(path: Path, blank: list[int], count: int) -> Iterator[str]:
    """Say which lines are blank, those at the end of the file left out: they move no prompt."""
    last, found = count, set(blank)
    while last in found:
        last -= 1
    named = [str(number) for number in blank if number < last]
    if named:
        rest = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        shown = ", ".join(named[:_MOST_NAMED])
        yield f"{path.name}: line {shown}{rest} blank: no prompt, and no image is left out for it"


@dataclass(frozen=True)
class _Row:
    """A row of a CSV file: the lines that it is on, and its fields."""

    first: int
    last: int
    fields: list[str]


def _table(path: Path, lines: list[str]) -> Prompts:
    end = next((n for n, line in enumerate(lines) if line.strip()), 0)
    delimiter, names = _heading(path, lines[end], end + 1)
    rows = list(_rows(path, lines, delimiter))
    column = names.index(_PROMPT)
    texts = [_cell(path, row, names, column, lines) for row in rows[1:]]
    notes = [*_many_lines(path, rows), *_spilled(path, rows, column)]
    notes += _blank_note(path, _blank(lines, rows), len(lines))
    if _IMAGE in names:
        ids = [_image(path, row, names.index(_IMAGE)) for row in rows[1:]]
        texts, told = _ordered(path, ids, texts, rows)
        notes += told
    unread = [name or "(no name)" for name in names if name not in (_PROMPT, _IMAGE)]
    if unread:
        notes.append(f"{path.name}: columns not read: {', '.join(unread)}")
    return Prompts(tuple(texts), tuple(notes))


def _heading(path: Path, line: str, number: int) -> tuple[str, list[str]]:
    """What stands between fields, and the names of columns, in small letters."""
    for delimiter in _DELIMITERS:
        row = next(csv.reader([line], delimiter=delimiter), [])
        names = [name.strip().casefold() for name in row]
        if names.count(_PROMPT) > 1 or names.count(_IMAGE) > 1:
            raise _refused(path, "a column is there twice", line=number, found=", ".join(names))
        if _PROMPT in names:
            return delimiter, names
    found = ", ".join(repr(name) for name in next(csv.reader([line]), [])[:6])
    raise _refused(path, "no prompt column", line=number, found=what_it_is(path) or found)


def _rows(path: Path, lines: list[str], delimiter: str) -> Iterator[_Row]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first = 1
    try:
        for fields in reader:
            # Blank lines before a row are passed over by the reader, and counted to it.
            while first < reader.line_num and not lines[first - 1].strip():
                first += 1
            # Nothing in quotes is a row all the same, whose prompt is missing.
            if "".join(lines[first - 1 : reader.line_num]).strip():
                yield _Row(first, reader.line_num, fields)
            first = reader.line_num + 1
    except csv.Error as error:
        long = "limit" in str(error)
        what = "a field that is too long, or its quote does not close" if long else _OPEN
        raise _refused(path, what, line=first, found=str(error)) from error


def _cell(path: Path, row: _Row, names: list[str], column: int, lines: list[str]) -> str:
    """The prompt of a row, refused where it may not be what its writer meant."""
    if len(row.fields) != len(names):
        what = f"{len(row.fields)} columns, the heading has {len(names)}: quote a prompt"
        raise _refused(path, f"{what} that holds the separator", line=row.first)
    text = row.fields[column].rstrip("\r")
    if not text.strip():
        raise _refused(path, "a row without a prompt", line=row.first)
    quoted = '"' + text.replace('"', '""') + '"'
    spaced = text != text.lstrip() and text.lstrip().startswith('"')
    if spaced and quoted not in "".join(lines[row.first - 1 : row.last]):
        raise _refused(path, "a quote after a space, which is no quoting", line=row.first)
    return text


def _spilled(path: Path, rows: list[_Row], column: int) -> Iterator[str]:
    """Say where the next column may be the rest of a prompt: a space goes on after the comma."""
    after = column + 1
    if after >= len(rows[0].fields) or rows[0].fields[after].startswith(" "):
        return
    found = [row for row in rows[1:] if row.fields[after].startswith(" ")]
    if found:
        name = rows[0].fields[after].strip()
        shown = ", ".join(str(row.first) for row in found[:_MOST_NAMED])
        what = f"what follows the prompt and a space is taken for {name or 'a column of no name'}"
        yield f"{path.name}: line {shown}: {what}; quote a prompt that goes on there"


def _image(path: Path, row: _Row, column: int) -> int:
    text = row.fields[column].strip()
    if not text.isdecimal() or len(text) > 18:
        raise _refused(path, "image_id is no number", line=row.first, found=repr(text)[:40])
    return int(text)


def _ordered(
    path: Path, ids: list[int], texts: list[str], rows: list[_Row]
) -> tuple[list[str], list[str]]:
    """Prompts in the order of their ids, where these are places of images."""
    seen: dict[int, int] = {}
    for image, row in zip(ids, rows[1:], strict=True):
        if image in seen:
            what = f"image_id {image} is that of line {seen[image]} too"
            raise _refused(path, what, line=row.first)
        seen[image] = row.first
    places = list(range(len(ids)))
    if sorted(ids) != places:
        said = f"image_id runs from {min(ids)} to {max(ids)}" if ids else "no rows"
        return texts, [f"{path.name}: {said}, not 0 to {len(ids) - 1}: rows in their own order"]
    moved = [] if ids == places else [f"{path.name}: rows put in the order of image_id"]
    return [texts[ids.index(place)] for place in places], moved


def _many_lines(path: Path, rows: list[_Row]) -> Iterator[str]:
    spread = [f"{row.first} to {row.last}" for row in rows[1:] if row.last > row.first]
    if spread:
        shown = ", ".join(spread[:_MOST_NAMED])
        yield f"{path.name}: lines {shown} are one row each: a quote holds their line ends"


def _blank(lines: list[str], rows: list[_Row]) -> list[int]:
    inside = {number for row in rows for number in range(row.first, row.last + 1)}
    return [n for n, line in enumerate(lines, 1) if not line.strip() and n not in inside]

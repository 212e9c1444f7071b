"""Files of a run folder that no source reads, in words: nothing is dropped in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from taqstore.errors import SourceError

from .detect import Source
from .parts.json_fields import read_document
from .table import SOURCES

# More of a folder's files of one kind are counted, not named.
_NAMED = 8
# Of a larger JSON document it is not asked what it says it is.
_MOST_BYTES = 64 << 20
_MOST_FILES = 1_000_000


def left(path: Path, found: Iterable[Source]) -> tuple[str, ...]:
    """A line on each kind of file at or below `path` that none of the sources there reads.

    Links to folders are not followed, and named like files.
    """
    if not path.is_dir():
        return ()
    taken = [(source.path, _pattern(source)) for source in found]
    by_kind: dict[tuple[str, str], list[Path]] = {}
    for file in _files(path):
        if not any(_is_taken(file, root, pattern) for root, pattern in taken):
            folder = file.parent.relative_to(path).as_posix()
            by_kind.setdefault((folder, file.suffix), []).append(file)
    return tuple(f"not taken: {_described(path, files)}" for _, files in sorted(by_kind.items()))


def _pattern(source: Source) -> re.Pattern[str] | None:
    takes = SOURCES[source.kind].takes
    return re.compile(takes) if takes and source.path.is_dir() else None


def _is_taken(file: Path, root: Path, pattern: re.Pattern[str] | None) -> bool:
    if pattern is None:
        return file == root
    return file.is_relative_to(root) and bool(pattern.fullmatch(file.relative_to(root).as_posix()))


def _files(path: Path) -> Iterator[Path]:
    seen = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield Path(folder) / name
            seen += 1
            if seen == _MOST_FILES:
                return


def _described(path: Path, files: list[Path]) -> str:
    """Names of a few files, with what their documents say they are; of many the number."""
    folder = files[0].parent.relative_to(path)
    if len(files) > _NAMED:
        kind = files[0].suffix or "other"
        return f"{len(files)} {kind} files in {path.name if folder == Path() else folder}/"
    return ", ".join(f"{file.relative_to(path).as_posix()}{_says(file)}" for file in files)


def _says(file: Path) -> str:
    """What a JSON document says it is, in brackets; nothing where it says nothing."""
    if file.suffix != ".json" or file.is_symlink() or file.stat().st_size > _MOST_BYTES:
        return ""
    try:
        document = read_document(file)
    except SourceError:
        return ""
    format_name = document.get("format", document.get("version"))
    return f" ({format_name[:60]})" if isinstance(format_name, str) else ""

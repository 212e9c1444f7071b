"""Which sources lie at a path, judged by content: file names only say where to look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taqstore.errors import SourceError
from taqstore.files.refusal import problem
from taqstore.names import is_block_key

from .parts.place import Place
from .table import SOURCES


@dataclass(frozen=True)
class Source:
    """A source that was found: its kind (a key of `SOURCES`) and the folder or file to plan."""

    kind: str
    path: Path


def detect(path: Path) -> list[Source]:
    """Sources at `path`, a folder or a file; those of a folder's direct subfolders too.

    Raises
    ------
    SourceError
        Nothing there, or nothing that is known; the message says what it is and what is accepted.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise SourceError(problem("does not exist", where=str(path), remedy="check the path"))
    place = Place(path)
    return _found(place)[:1] or [_refuse(place)]


def _in_folder(path: Path) -> list[Source]:
    """Parts of a run; else the known files; else the run that this is a subfolder of."""
    found = _found(Place(path))
    here = {source.kind for source in found}
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        # Of a source that lies here its own subfolders are no further ones.
        below = (source for source in _found(Place(folder)) if source.kind not in here)
        found += [source for source in below if SOURCES[source.kind].nested]
    if found:
        order = list(SOURCES)
        return sorted(found, key=lambda source: order.index(source.kind))
    if path.name in {row.inside for row in SOURCES.values() if row.inside}:
        found = _found(Place(path.parent))
        if found:
            return found
    unknown = ""
    for file in sorted(path.iterdir()):
        if file.suffix in (".npz", ".json"):
            try:
                found += detect(file)
            except SourceError as error:
                unknown = unknown or str(error)
    if not found:
        what, remedy = "nothing to ingest here", _accepted()
        raise SourceError(unknown or problem(what, where=str(path), remedy=remedy))
    return found


def _found(place: Place) -> list[Source]:
    """Sources whose own documents or data the place holds directly."""
    found = ((word, row.find(place)) for word, row in SOURCES.items())
    return [Source(word, path) for word, path in found if path is not None]


def _refuse(place: Place) -> Source:
    """Say what a file is that no source knows."""
    where, keys = str(place.path), place.keys
    if {"x", "step_index"} <= set(keys) or any(map(is_block_key, keys)):
        remedy = f"give the folder, {place.path.parent.parent}"
        raise SourceError(problem("one sample of a run", where=where, remedy=remedy))
    if keys:
        found = f"keys {', '.join(keys[:6])}"
        raise SourceError(problem("unknown npz", where=where, found=found, remedy=_accepted()))
    found = "neither `format` nor `version`" if place.format is None else repr(place.format)[:80]
    raise SourceError(problem("unknown format", where=where, found=found, remedy=_accepted()))


def _accepted() -> str:
    return f"give {'; '.join(row.doc for row in SOURCES.values())}"

"""Which sources lie at a path, judged by content: file names only say where to look."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from taqstore.errors import SourceError
from taqstore.files.refusal import problem, what_it_is
from taqstore.metadata.near import near_path
from taqstore.names import is_block_key

from .parts.place import Place
from .table import SOURCES

_PROMPTS = (".csv", ".txt", ".tsv")
_VERSION = re.compile(r"_v\d+.*")


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
        remedy = near_path(str(path), stores=False) or "check the path"
        raise SourceError(problem("does not exist", where=str(path), remedy=remedy))
    place = Place(path)
    _refuse_others(place)
    return _found(place)[:1] or [_refuse(place)]


def _refuse_others(place: Place) -> None:
    """Refuse, before it is parsed, what is neither npz nor JSON; prompts are told what to do."""
    kind, suffix = what_it_is(place.path), place.path.suffix.lower()
    where = str(place.path)
    if suffix in _PROMPTS and kind != "JSON":
        what = "prompts are no source of their own"
        remedy = (
            f"--prompts {place.path.name} beside a Phase 1 file; taqstore generate samples them"
        )
        raise SourceError(problem(what, where=where, found=kind, remedy=remedy))
    if suffix not in (".npz", ".json") and kind not in ("JSON", "npz"):
        what, found = "neither an npz nor a JSON file", kind or f"suffix {suffix!r}"
        raise SourceError(problem(what, where=where, found=found, remedy=_accepted()))


def _in_folder(path: Path) -> list[Source]:
    """Parts of a run; else the known files; else the run that this is a subfolder of."""
    found = _found(Place(path))
    here = {source.kind for source in found}
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        # Of a source that lies here its own subfolders are no further ones.
        below = (source for source in _found(Place(folder)) if source.kind not in here)
        found += [source for source in below if SOURCES[source.kind].nested]
    if found:
        found += _files_beside(path, found)
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


def _files_beside(path: Path, found: list[Source]) -> list[Source]:
    """Known files that lie in a run's folder, where there is one of their kind.

    Two of a kind, whatever their versions, would fill the same groups: they are left for the user
    to choose from.
    """
    by_kind: dict[tuple[str, str], list[Source]] = {}
    for file in sorted(path.iterdir()):
        if file.suffix in (".npz", ".json") and file.is_file() and not file.is_symlink():
            place = Place(file)
            try:
                sources = [source for source in _found(place) if source.path == file]
            except SourceError:
                continue
            for source in sources[:1]:
                kind = source.kind, _VERSION.sub("", str(place.format))
                by_kind.setdefault(kind, []).append(source)
    here = {source.kind for source in found}
    return [each[0] for (kind, _), each in by_kind.items() if len(each) == 1 and kind not in here]


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

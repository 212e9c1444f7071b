"""Where an output may lie: anywhere, but never over, around or in a store."""

from __future__ import annotations

import json
import os
from pathlib import Path

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.files.remote import ELSEWHERE, METADATA, Place, RemotePath, output_path
from taqstore.place.location import Location

_MARKER = "taqstore"
# What a writer of the format could have left; larger metadata is not read to be judged.
_MOST_BYTES = 1 << 26
TABLES = (".parquet", ".csv")
DATASETS = (".nc", ".zarr", *TABLES)
"""Suffixes of what a table, and a Dataset, is written as."""


def check_target(out: str | os.PathLike[str]) -> Path:
    """The path of an output, if neither it nor what lies above or below it is a store.

    A store is a folder whose `zarr.json` carries the marker of taqstore, or cannot be read.
    Symbolic links are followed.

    Returns
    -------
    pathlib.Path
        Of this disk; or a `RemotePath`, where it is a URL.

    Raises
    ------
    TaqError
        It is a store, lies in one, or is a folder that holds one; or its server refuses.
    """
    path = output_path(out)
    if isinstance(path, RemotePath):
        Place.of(path).check(_is_marked, most=_MOST_BYTES)
        return path
    text = os.fspath(path)
    try:
        _check_above(text)
        _check_below(text)
    except OSError as error:
        what = f"no place for an output: {error.strerror or error}"
        raise TaqError(problem(what, where=text, remedy="choose another path")) from error
    return path


def check_suffix(path: Path, known: tuple[str, ...] = DATASETS) -> None:
    """Refuse a suffix that names none of the formats that are known.

    Raises
    ------
    MisuseError
        It does not.
    """
    if path.suffix not in known:
        what = f"cannot tell a format from the suffix {path.suffix!r}"
        raise MisuseError(problem(what, where=str(path), remedy=f"use {', '.join(known)}"))


def check_above_store(folder: Path) -> None:
    """Refuse a place for a new store that lies in another one, by a TaqError."""
    if not is_store(folder):
        _check_above(os.fspath(folder), itself=False)


def check_below_store(folder: Path) -> None:
    """Refuse a place for a new store that holds another one, by a TaqError."""
    if not is_store(folder):
        _check_below(os.fspath(folder))


def check_above_remote(location: Location) -> None:
    """Refuse a URL of a new store that lies in another one, by a TaqError."""
    if location.store is None and "/" in location.url.partition("://")[2]:
        place = Place.of(location.url, options=location.options)
        place.check_above(_is_marked, most=_MOST_BYTES)


def _check_above(text: str, *, itself: bool = True) -> None:
    # The place of the entry that would change, and where it leads if it is a link.
    head, name = os.path.split(text.rstrip(os.sep))
    for place in (Path(os.path.realpath(head), name), Path(os.path.realpath(text))):
        for folder in ((place,) * itself) + tuple(place.parents):
            if is_store(folder):
                what = "is a store" if folder == place else "lies in a store"
                raise TaqError(problem(what, where=text, found=str(folder), remedy=ELSEWHERE))


def _check_below(text: str) -> None:
    for folder, folders, files in os.walk(os.path.realpath(text)):
        folders.sort()
        if METADATA in files and is_store(Path(folder)):
            what = "a store lies in this folder"
            raise TaqError(problem(what, where=text, found=folder, remedy=ELSEWHERE))


def is_store(folder: Path) -> bool:
    """Whether a folder's metadata carry the marker of taqstore, or cannot be read."""
    path = os.path.join(folder, METADATA)
    if not os.path.isfile(path):
        return False
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            return True
        with open(path, "rb") as file:
            return _is_marked(file.read())
    except OSError:
        return True


def _is_marked(raw: bytes) -> bool:
    try:
        return _MARKER in json.loads(raw).get("attributes", {})
    except (ValueError, RecursionError, AttributeError, TypeError):
        return True  # what cannot be read may be a damaged store

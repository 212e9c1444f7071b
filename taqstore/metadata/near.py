"""What was meant by a path that is not there: looked for beside it, around it and below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from taqstore.asked import listed, nearest
from taqstore.files.targets import is_store

_MOST_ENTRIES, _MOST_NAMED, _DEEP = 2000, 3, 2
_METADATA = "zarr.json"


def near_path(text: str, *, stores: bool) -> str:
    """What to say of a path that is not what it should be; empty where nothing is like it.

    Parameters
    ----------
    text
        As it was typed.
    stores
        Whether a store is looked for, else any file or folder.
    """
    if "://" in text:
        return ""
    try:
        return (_store_near(text) if stores else "") or _beside(text, stores=stores)
    except (OSError, ValueError):
        return ""


def _store_near(text: str) -> str:
    """A store that the path lies in, or that lies in it."""
    place = Path(os.path.abspath(text))
    around = next((one for one in place.parents if _is_store(one)), None)
    if around is not None:
        shown = _as_typed(text, around)
        below = place.relative_to(around).as_posix()
        return f"it lies in the store {shown}: name that, and {below} as its group"
    found = [_as_typed(text, one) for one in islice(_stores_below(place), _MOST_NAMED + 1)]
    if len(found) > _MOST_NAMED:
        return f"stores in it: {', '.join(found[:_MOST_NAMED])}, ..."
    return f"did you mean {' or '.join(found)}?" if found else ""


def _stores_below(folder: Path, deep: int = _DEEP) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for name in _names(folder):
        place = folder / name
        if place.is_dir() and not name.startswith("."):
            if _is_store(place):
                yield place
            elif deep > 1:
                yield from _stores_below(place, deep - 1)


def _beside(text: str, *, stores: bool) -> str:
    """The path with what is not there by what is most like it; else the stores beside it."""
    near = _mended(text.rstrip("/"), stores=stores)
    if near:
        return f"did you mean {near}?"
    head = os.path.dirname(text.rstrip("/"))
    if not stores or not os.path.isdir(head or "."):
        return ""
    there = [os.path.join(head, name) for name in _names(head) if _is_store(Path(head, name))]
    return f"there is {listed(there[:_MOST_NAMED])}" if there else ""


def _mended(text: str, *, stores: bool) -> str:
    """A path that is there, each part like that of the one that is not; empty where none is."""
    found, parts = "", list(Path(text).parts)
    for number, part in enumerate(parts, start=1):
        there = part
        if not os.path.lexists(os.path.join(found, part)):
            names = [one for one in _names(found) if part[0] == "." or one[0] != "."]
            if stores and number == len(parts):
                names = [one for one in names if _is_store(Path(found, one))]
            there = nearest(part, [one for one in names if _alike(part, one)])
        if not there:
            return ""
        found = os.path.join(found, there)
    good = found != text and (not stores or _is_store(Path(found)))
    return found if good else ""


def _alike(typed: str, there: str) -> bool:
    """Whether names are alike without their suffixes, which most names of a folder share."""
    return bool(nearest(Path(typed).stem, [Path(there).stem]))


def _as_typed(text: str, place: Path) -> str:
    """A path around or below the one that was typed, in the way it was typed."""
    return str(place) if os.path.isabs(text) else os.path.relpath(place)


def _names(folder: str | Path) -> list[str]:
    with os.scandir(folder or ".") as entries:
        return sorted(entry.name for entry in islice(entries, _MOST_ENTRIES))


def _is_store(folder: Path) -> bool:
    return os.path.isfile(folder / _METADATA) and is_store(folder)

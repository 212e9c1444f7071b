"""What killed commands leave in and beside a store: found, told, and removed where that is safe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from taqstore.errors import StoreError
from taqstore.items.flags import read_group
from taqstore.place.disk import HOLDER, is_held
from taqstore.place.local_backend import WORK
from taqstore.place.location import Location
from taqstore.place.plain_files import PARTIAL, is_foreign, is_leftover


@dataclass(frozen=True)
class Leftover:
    """One thing that a killed command left: where, what it is, and whether it may go."""

    path: Path
    what: str
    safe: bool


def find_leftovers(location: Location, *, deep: bool = False) -> Iterator[Leftover]:
    """Leftovers beside a local store; none are looked for elsewhere.

    Parameters
    ----------
    deep
        Look through the store as well: older versions made files in place.
    """
    folder = location.folder
    if folder is None:
        return
    work = location.beside(WORK)
    found = [*work.iterdir()] if work.is_dir() else []
    if deep:
        found += [Path(base, name) for base, _, names in os.walk(folder) for name in names]
    for path in sorted(path for path in found if path.name.endswith(PARTIAL)):
        yield Leftover(path, "half-written file of a killed command", is_leftover(path.name))
    note = location.beside(HOLDER)
    if note.is_file() and not is_held(location.beside("lock")):
        yield Leftover(note, "note of a killed command that held the lock", True)
    replaced = location.beside("replaced")
    for aside in _inside(replaced):
        group = aside.name.rpartition(".")[0].replace("@", "/")
        yield Leftover(aside, f"{group} as it was before --force", _is_whole(location, group))
    locks = location.beside("locks")
    for lock in _inside(locks):
        yield Leftover(lock, "lock of an item", not is_held(lock))


def _is_whole(location: Location, group: str) -> bool:
    """Whether what replaced a group is complete, so that nobody will miss the old one."""
    try:
        items = read_group(location.backend(), group)
    except StoreError:
        return False
    return items is not None and bool(items.mask.all())


def _inside(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if not is_foreign(path.name))


def remove_leftovers(location: Location) -> None:
    """Remove what is safe to remove. The caller holds the store's lock."""
    for leftover in find_leftovers(location):
        if leftover.safe:
            remove(leftover)


def remove(leftover: Leftover) -> None:
    """Remove one leftover."""
    with suppress(FileNotFoundError):
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink()

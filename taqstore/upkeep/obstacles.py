"""What repair moves out of a store: what stands where a file or folder belongs, and is none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from taqstore.place.location import Location
from taqstore.place.plain_files import flush_path
from taqstore.upkeep.verify import Survey

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}


def obstacles(found: Survey) -> Iterator[tuple[str, str]]:
    """Obstacles on the way to damaged files of a local store.

    Each once: its place below the store, and what it is and what belongs there.
    """
    root, seen = found.location.real, set[str]()
    if root is None:
        return
    for finding in found.damage:
        way = PurePosixPath(finding.key or finding.group)
        for part in (*reversed(way.parents), way):
            what = _obstacle(root / part, is_file=bool(finding.key) and part == way)
            if what and str(part) not in seen:
                seen.add(str(part))
                yield str(part), what
            if what:
                break


def _obstacle(path: Path, *, is_file: bool) -> str:
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return ""
    belongs = stat.S_IFREG if is_file else stat.S_IFDIR
    if kind == belongs:
        return ""
    return f"{_KINDS.get(kind, 'something')} where {_KINDS[belongs]} belongs"


def set_aside(location: Location, place: str) -> None:
    """Move what lies at a place of a local store out of it, beside it."""
    assert location.real is not None
    folder = location.beside("damaged")
    folder.mkdir(exist_ok=True)
    standing = location.real / place
    standing.rename(_free(folder / place.replace("/", "@")))
    flush_path(standing.parent)


def _free(path: Path) -> Path:
    """A name that is not taken, beginning with this one."""
    number, free = 0, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free

"""What stands where a file or a folder of a store belongs, and is none: set aside by repair."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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


@dataclass(frozen=True)
class Obstacles:
    """Obstacles on the way to damaged files of a local store."""

    survey: Survey

    def found(self) -> Iterator[tuple[str, str]]:
        """Each once: its place below the store, and what it is and what belongs there."""
        root, seen = self.survey.location.real, set[str]()
        for finding in self.survey.damage if root is not None else ():
            way = PurePosixPath(finding.key or finding.group)
            for part in (*reversed(way.parents), way):
                found = self._obstacle(str(part), is_file=bool(finding.key) and part == way)
                if found and str(part) not in seen:
                    seen.add(str(part))
                    yield str(part), found
                if found:
                    break

    def _obstacle(self, place: str, *, is_file: bool) -> str:
        assert self.survey.location.real is not None
        try:
            kind = stat.S_IFMT(os.lstat(self.survey.location.real / place).st_mode)
        except OSError:
            return ""
        belongs = stat.S_IFREG if is_file else stat.S_IFDIR
        if kind == belongs:
            return ""
        return f"{_KINDS.get(kind, 'something')} where {_KINDS[belongs]} belongs"

    def set_aside(self, place: str) -> None:
        """Move one out of the store, beside it."""
        assert self.survey.location.real is not None
        folder = self.survey.location.beside("damaged")
        folder.mkdir(exist_ok=True)
        standing = self.survey.location.real / place
        standing.rename(_free(folder / place.replace("/", "@")))
        flush_path(standing.parent)


def _free(path: Path) -> Path:
    """A name that is not taken, beginning with this one."""
    number, free = 0, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free

"""What takes long to make and is only copied: made once in a process, and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from tempfile import TemporaryDirectory

_MADE: dict[Hashable, dict[str, bytes | None]] = {}


def made_once(key: Hashable, make: Callable[[Path], object], folder: Path) -> None:
    """Put into a folder what `make` puts into a folder of its own; the first who asks makes it.

    Kept are the bytes: no folder lies about that a process which was forked may take away.
    """
    if key not in _MADE:
        with TemporaryDirectory(dir=folder) as work:
            make(Path(work))
            _MADE[key] = {
                path.relative_to(work).as_posix(): path.read_bytes() if path.is_file() else None
                for path in sorted(Path(work).rglob("*"))
            }
    for name, content in _MADE[key].items():
        path = folder / name
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)

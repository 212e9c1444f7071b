"""Writers killed before each change they make to the disk, as a program: KIND FOLDER.

Makes `FOLDER/N/out` once as "old", then again as "new" by a process that dies before its N-th
change, for every N until one comes to its end. A process of its own, as forks need a single thread.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from taqstore.files.staged import whole_file, whole_folder

CONTENT = ("list.json", "parts/*.bin")
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")


def write_file(text: str, out: Path, *, force: bool = False) -> None:
    """A file that holds the text."""
    with whole_file(out, force=force) as fresh:
        fresh.write_text(text)


def write_folder(text: str, out: Path, *, force: bool = False) -> None:
    """A folder of two files that hold the text."""
    with whole_folder(out, content=CONTENT, force=force) as fresh:
        (fresh / "parts").mkdir(parents=True)
        (fresh / "parts/0.bin").write_text(text)
        (fresh / "list.json").write_text(text)


WRITERS: dict[str, Callable[..., None]] = {"file": write_file, "folder": write_folder}


def _die_at(event: int) -> None:
    left = itertools.count(event, -1)

    def count(name: str, arguments: tuple[object, ...]) -> None:
        made = name == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if (made or name in _CHANGES) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def main(kind: str, folder: Path) -> None:
    """Go on until a writer is not killed any more."""
    for event in itertools.count():
        out = folder / str(event) / "out"
        WRITERS[kind]("old", out)
        child = os.fork()
        if child == 0:
            _die_at(event)
            WRITERS[kind]("new", out, force=True)
            os._exit(0)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

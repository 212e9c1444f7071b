"""Outputs that appear whole or not at all, and the npz files inside them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taqstore.errors import TaqError, problem

# Deflating releases the GIL; two threads keep memory at two files.
_THREADS = 2


@dataclass(frozen=True)
class Summary:
    """What an export wrote.

    Parameters
    ----------
    path
        The file or folder.
    files, bytes
        How many files, and their size.
    notes
        What the reader of the output should know, one sentence each.
    """

    path: Path
    files: int
    bytes: int
    notes: tuple[str, ...] = ()


def summarize(path: Path, *notes: str) -> Summary:
    """Count what lies at `path`, a file or a folder; empty notes are left out."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Summary(path, len(files), size, tuple(note for note in notes if note))


@contextmanager
def staged(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Hand out a path for new output; rename what was made there to `out` at the end.

    The path lies in a temporary folder beside `out` and does not exist yet: make a file or a folder
    there. After an error, or a kill, `out` is as it was.

    Parameters
    ----------
    out
        The target.
    force
        Replace an existing target: it is renamed aside, and deleted once the new one is in place.

    Raises
    ------
    TaqError
        The target exists and `force` is false, or the disk refuses.
    """
    if os.path.lexists(out) and not force:
        raise TaqError(problem("the target exists", where=str(out), remedy="use --force"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{out.name}.", suffix=".partial", dir=out.parent
        ) as folder:
            fresh = Path(folder) / out.name
            yield fresh
            _put_in_place(fresh, out, aside=Path(folder) / "replaced", force=force)
    except OSError as error:
        what = f"cannot write: {error.strerror or error}"
        raise TaqError(
            problem(what, where=str(error.filename or out), remedy="nothing was changed there")
        ) from error


def _put_in_place(fresh: Path, out: Path, *, aside: Path, force: bool) -> None:
    """Rename `fresh` to `out`; what stood there goes to `aside`, and back if that fails."""
    standing = os.path.lexists(out)
    if standing and not force:
        raise TaqError(problem("the target appeared meanwhile", where=str(out)))
    if standing:
        out.rename(aside)
    try:
        fresh.rename(out)
    except OSError:
        if standing:
            aside.rename(out)
        raise


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one compressed npz, members in the order given."""
    np.savez_compressed(path, allow_pickle=False, **dict(arrays))


def save_all(jobs: Iterable[Callable[[], None]]) -> None:
    """Run writing jobs in two threads, at most a few waiting; the first error is raised."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = []
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > _THREADS:
                waiting.pop(0).result()
        for future in waiting:
            future.result()


def make_folder(path: Path) -> Path:
    """Create a folder and return it."""
    path.mkdir(parents=True)
    return path

"""What an export wrote, and how it writes a folder of npz files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.files.remote import RemotePath, described

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
    told = tuple(note for note in notes if note)
    if isinstance(path, RemotePath):
        sizes = described(path)
        return Summary(path, len(sizes), sum(sizes), told)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Summary(path, len(files), size, told)


def save_npz(
    fresh: Path,
    arrays: Mapping[str, np.ndarray | np.generic],
    *,
    compressed: bool = True,
    pickled: Collection[str] = (),
) -> None:
    """Write one npz, members in the order given, whatever the suffix.

    Only arrays named in `pickled` may hold Python objects.

    Raises
    ------
    TypeError
        Another one does.
    """
    objects = [n for n, array in arrays.items() if array.dtype.hasobject and n not in pickled]
    if objects:
        raise TypeError(f"{', '.join(objects)}: Python objects are never written")
    # Not `allow_pickle=False`: NumPy 2.0 takes that for one more array, and writes it.
    save = np.savez_compressed if compressed else np.savez
    with fresh.open("wb") as file:
        save(file, **dict[str, Any](arrays))


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

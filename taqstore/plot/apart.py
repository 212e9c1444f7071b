"""Figures by a second process: whether its imports are worth it, and sites shared out to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import dask.config
import xarray as xr

from taqstore.errors import MissingError
from taqstore.names import site_of
from taqstore.run.apart import apart
from taqstore.run.dealing import cores
from taqstore.store.reader import Store

LEAST_BYTES = 200_000_000
"""From so much to read on a second process is worth its imports: a second of one core."""

Files: TypeAlias = list[Path]
Elsewhere: TypeAlias = Callable[[str], Iterable[Files] | None]
"""By path the files that another process writes for it, page by page; None where nobody does."""


def is_worth(store: object, groups: Mapping[str, xr.Dataset]) -> bool:
    """Whether what is read of these groups of a store is much, and two processes may read it.

    They may where it lies on a local disk and work is done by threads on two cores or more.
    """
    if type(store) is not Store or store.location.folder is None or cores() < 2:
        return False
    if not _is_by_threads():
        return False
    return sum(group.nbytes for group in groups.values()) >= LEAST_BYTES


def _is_by_threads() -> bool:
    from dask.threaded import get

    scheduler = dask.config.get("scheduler", None)
    return scheduler in (None, "threads", get) and dask.config.get("num_workers", None) != 1


@contextmanager
def shared_out(
    kind: str,
    groups: Mapping[str, xr.Dataset],
    folder: Path,
    *,
    layers: Sequence[str] | None,
    formats: Sequence[str],
    options: Mapping[str, Any],
) -> Iterator[Elsewhere]:
    """Have another process write figures of some groups, the last ones first.

    Whoever asks in their order meets it in the middle: of groups that it has not begun nobody else
    writes the figures.

    Parameters
    ----------
    kind, layers, formats, options
        As of `render`.
    groups
        By path; a copy of each that reads the same items goes there.
    folder
        On a local disk.
    """
    how = {"layers": layers, "formats": formats, "options": dict(options)}
    with apart() as submit:
        coming = {
            path: submit(_written, kind, data, folder, site_of(path), how)
            for path, data in reversed(list(groups.items())[1:])
        }

        def of(path: str) -> Iterable[Files] | None:
            future = coming.get(path)
            if future is None or future.cancel():
                return None
            return _each(*future.result())

        yield of


def _each(files: list[Files], lacking: MissingError | None) -> Iterator[Files]:
    yield from files
    if lacking is not None:
        raise lacking


def _written(
    kind: str, data: xr.Dataset, folder: Path, site: str, how: Mapping[str, Any]
) -> tuple[list[Files], MissingError | None]:
    """Files of every page of a group, and what it lacks for more of them."""
    from taqstore.plot.render import make_pages, write_page

    files: list[Files] = []
    try:
        for page in make_pages(kind, data, layers=how["layers"], site=site, **how["options"]):
            files.append(write_page(page, folder, how["formats"]))
    except MissingError as error:
        return files, error
    return files, None

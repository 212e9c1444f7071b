"""Whether what a run will write fits where its store lies."""

from __future__ import annotations

import shutil

from taqstore.errors import StoreError, problem
from taqstore.place.location import Location


def free_bytes(location: Location) -> int | None:
    """Bytes free where a store lies, or would be made; None: not known."""
    if location.folder is None:
        return None
    there = next(path for path in (location.folder, *location.folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def check_fits(
    needed: int, free: int | None, location: Location, *, what: str, remedy: str
) -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    what
        What will be written: ``bytes``, ``bytes of second moments``.

    Raises
    ------
    StoreError
        More would be written than is free.
    """
    if free is not None and needed > free:
        text = f"{needed} {what} will not fit"
        found = f"{free} bytes free"
        raise StoreError(problem(text, where=str(location), found=found, remedy=remedy))

"""Where trajectories are kept: in the store, or for this run alone where it is read only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from taqstore.errors import StoreError, problem
from taqstore.run.mode import Mode
from taqstore.store.planned import plan_store
from taqstore.store.reader import Store
from taqstore.store.writer import StoreWriter, create_store

from ..tasks.task_writer import TaskWriter


@contextmanager
def keeping(store: Store, notes: list[str], mode: Mode) -> Iterator[StoreWriter]:
    """A writer for trajectories: of the store, or of one that is gone when the block ends.

    Parameters
    ----------
    notes
        Told where trajectories are not kept.
    mode
        Of the run that wants them.
    """
    try:
        writer = _writer(store, mode)
    except StoreError as error:
        reason = str(error).splitlines()[0]
        notes.append(f"trajectories are not kept, another run makes them again: {reason}")
        with (
            TemporaryDirectory(prefix="taqstore-") as folder,
            create_store(Path(folder) / "judged.zarr") as writer,
        ):
            yield writer
        return
    with writer:
        yield writer


def planning(store: Store) -> StoreWriter:
    """The store, to plan with: what it has is not made again, though it may not be written."""
    return plan_store(store.location, writable=False)


def _writer(store: Store, mode: Mode) -> StoreWriter:
    """The store open for writing.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    location = store.location
    read_only = location.read_only
    if location.folder is not None:
        read_only = not os.access(location.folder, os.W_OK)
    if read_only:
        raise StoreError(problem("the store cannot be written", where=str(location)))
    return create_store(location) if mode.only is None else TaskWriter(location)

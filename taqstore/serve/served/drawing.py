"""One drawing at a time: matplotlib's caches of fonts and texts are not for several threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from taqstore.serve.http.work import BusyError

# One draws, one waits: more of them would keep threads from short questions.
_PLACES = BoundedSemaphore(2)
_DRAWING = Lock()


@contextmanager
def drawing() -> Iterator[None]:
    """Held while figures are made and written.

    Raises
    ------
    BusyError
        Another figure is being drawn, and one waits already.
    """
    if not _PLACES.acquire(blocking=False):
        raise BusyError
    try:
        with _DRAWING:
            yield
    finally:
        _PLACES.release()

"""One writer at a time, where a store has no conditional puts: a note says who it is.

Two that begin in the same moment read the note back, and the one that does not find its own gives
way. What is refused is refused at once; a writer that was killed is told by its process, or by its
note, which is not renewed any more.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from taqstore.errors import StoreError, TaqError, problem
from taqstore.place.remote.owners import Lease, is_gone, is_ours, told_by, who

_VALID, _SETTLES = 60.0, 0.2
# Writers of this process, by store: the last one gives the right back.
_WRITERS: Counter[str] = Counter()
_LOCK = threading.Lock()


class SingleWriter:
    """The right to write to one store, for this process.

    Parameters
    ----------
    get, put
        What the note says, None where there is none; and writing it.
    name
        Of the store, for messages.
    """

    def __init__(
        self,
        get: Callable[[], bytes | None],
        put: Callable[[bytes], Any],
        name: str,
    ) -> None:
        self._get, self._put, self._name = get, put, name
        self._lease = Lease(_VALID)
        self._begun, self._ended = False, threading.Event()

    def begin(self) -> None:
        """Become the writer; StoreError where another process is."""
        if self._begun:
            return
        self._refuse_other()
        self._put(self._lease.text())
        time.sleep(_SETTLES)
        self._refuse_other()
        self._begun, self._ended = True, threading.Event()
        with _LOCK:
            _WRITERS[self._name] += 1
        threading.Thread(target=self._renew, args=(self._ended,), daemon=True).start()

    def _refuse_other(self) -> None:
        found = self._get()
        told = None if found is None else told_by(found)
        mine = told is not None and told.get("token") == self._lease.token
        if told is None or mine or is_ours(told) or is_gone(told):
            return
        what = "another process writes to this store, which can have one writer at a time"
        remedy = "wait for it; several need a store with conditional puts (s3://, gs://, az://)"
        raise StoreError(problem(what, where=self._name, found=who(told), remedy=remedy))

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(_VALID / 4):
            with suppress(TaqError, OSError):
                self._put(self._lease.text())

    def end(self) -> None:
        """Give the right back."""
        if not self._begun:
            return
        self._begun = False
        self._ended.set()
        with _LOCK:
            _WRITERS[self._name] -= 1
            last = not _WRITERS[self._name]
        if last:
            with suppress(TaqError, OSError):
                self._put(self._lease.text(free=True))

"""The lock of what writers of an object store share: a lease object, taken by conditional puts.

Who holds it is silent only between requests; one that stays silent is passed over. The one passed
over finds out by its own next put, which is on the condition that nothing has changed.
"""

from __future__ import annotations

import logging
import random
import threading
import time

from taqstore.errors import StoreError, SupersededError, problem
from taqstore.place.remote.objects import Objects
from taqstore.place.remote.owners import Lease, Silence, told_by, who

_log = logging.getLogger(__name__)
LEASE_SECONDS = 30.0
"""How long a lease holds that is not renewed."""
PATIENCE = 60.0
"""Seconds that a writer waits for another one that does not get on."""
_SOONEST, _LATEST, _TALKS_AFTER = 0.05, 1.0, 1.0


class StoreLock:
    """The lease of one store, for one writer; held by one thread at a time.

    Parameters
    ----------
    objects, key
        Where the lease lies: beside the store.
    name
        Of the store, for messages.
    """

    def __init__(self, objects: Objects, key: str, name: str) -> None:
        self._objects, self._key, self._name = objects, key, name
        self._silence = Silence()
        self._lease, self._tag, self._renewed = Lease(LEASE_SECONDS), "", 0.0
        # Objects are put side by side, each of which may ask whether the lease is still ours.
        self._renewing = threading.Lock()

    def acquire(self, timeout: float | None) -> None:
        """Take the lease, waiting while others who hold it get on.

        Raises
        ------
        StoreError
            The same owner has held it for the whole time.
        """
        limit = PATIENCE if timeout is None else timeout
        start, told, pause = time.monotonic(), False, _SOONEST
        while True:
            owner, moved = self._try()
            if owner is None:
                return
            start = time.monotonic() if moved else start
            waited = time.monotonic() - start
            if waited > limit:
                what = f"another process has been writing to this store for {limit:g} s"
                remedy = "wait for it, or stop it, and try again"
                raise StoreError(problem(what, where=self._name, found=owner, remedy=remedy))
            if waited > _TALKS_AFTER and not told:
                _log.warning("waiting for %s: %s is writing to it", self._name, owner)
                told = True
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LATEST, 1.5 * pause)

    def _try(self) -> tuple[str | None, bool]:
        """Try once: who holds it, None where it is ours; and whether it has changed hands."""
        tag = self._tag_if_free()
        if isinstance(tag, tuple):
            return tag
        text = self._lease.text()
        if tag is None:
            taken = self._objects.create(self._key, text)
        else:
            taken = self._objects.replace(self._key, text, tag)
        if taken is None:
            return "another process", True
        self._tag, self._renewed = taken, time.monotonic()
        return None, True

    def _tag_if_free(self) -> str | tuple[str, bool] | None:
        """The tag to replace, None where there is no lease; else who holds it, and if it moved."""
        if self._tag:  # as we gave it back: perhaps nobody has been here since
            tag, self._tag = self._tag, ""
            return tag
        found = self._objects.get(self._key)
        if found is None:
            return None
        content, tag = found
        told = told_by(content) or {"free": True, "valid_s": 0.0}
        moved = self._silence.lasted(self._key, tag) == 0.0
        if self._silence.may_be_taken(self._key, tag, told):
            return tag
        return who(told), moved

    def check(self, *, sure: bool = False) -> None:
        """Renew the lease where it is old, or always; StoreError where another has taken it."""
        with self._renewing:
            if not sure and time.monotonic() - self._renewed < LEASE_SECONDS / 3:
                return
            taken = self._objects.replace(self._key, self._lease.text(), self._tag)
            if taken is None:
                raise superseded(self._name)
            self._tag, self._renewed = taken, time.monotonic()

    def release(self) -> None:
        """Give the lease back; where it was taken over, it is another's."""
        self._tag = self._objects.replace(self._key, self._lease.text(free=True), self._tag) or ""

    def is_honoured(self) -> bool:
        """Whether the store keeps both conditions.

        What is there is not created again, and what is another by now is not replaced: some servers
        know the first alone.
        """
        no_tag = self._objects.no_tag
        try:
            made = self._objects.create(self._key, self._lease.text(free=True))
            if made and self._objects.create(self._key, self._lease.text(free=True)):
                return False
            return self._objects.replace(self._key, self._lease.text(free=True), no_tag) is None
        except NotImplementedError:
            return False


def superseded(where: str) -> SupersededError:
    """The error of a writer that was passed over."""
    what, remedy = "another writer has gone on while this one was silent", "run again"
    return SupersededError(problem(what, where=where, remedy=remedy))

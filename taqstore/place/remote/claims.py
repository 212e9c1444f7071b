"""Items of an object store that writers hold: a claim stands where the item's flag will be.

A flag is put on the condition that the claim in its place is still the writer's own: one that was
passed over cannot flag what another has written since. Claims are renewed while they are held; one
that is not renewed is anybody's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from taqstore.errors import SupersededError, TaqError, problem
from taqstore.place.remote.objects import Objects
from taqstore.place.remote.owners import Lease, Silence, told_by

CLAIM_SECONDS = float(os.environ.get("TAQSTORE_CLAIM_SECONDS", "120"))
"""How long a claim holds that is not renewed: a writer may be stopped, or off line, for so long."""


@dataclass
class _Held:
    lease: Lease
    tag: str
    renewed: float
    lock: threading.Lock
    lost: bool = False


class Claims:
    """The claims of one writer; safe to use from several threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self._silence = objects, Silence()
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._renewing: threading.Thread | None = None

    @contextmanager
    def claimed(self, key: str, size: int) -> Iterator[bool]:
        """Hold the item whose flag has that key; False where another does, or it has a flag.

        A claim never has the size that the flag will have: listings tell them apart.
        """
        with self._lock:
            mine = key in self._held
        held = None if mine else self._taken(key, size)
        if held is None:
            yield False
            return
        with self._lock:
            self._held[key] = held
            if self._renewing is None:
                self._renewing = threading.Thread(target=self._renew, daemon=True)
                self._renewing.start()
        try:
            yield True
        finally:
            with self._lock:
                still = self._held.pop(key, None)
            if still is not None and not still.lost:  # not flagged: others need not wait for it
                # It stays, free: to remove an object takes no condition, and by then it may be
                # another's claim, or a flag.
                with suppress(TaqError), still.lock:
                    self._objects.replace(key, still.lease.text(free=True), still.tag)

    def _taken(self, key: str, size: int) -> _Held | None:
        lease, now = Lease(CLAIM_SECONDS, unlike=size), time.monotonic()
        tag = self._objects.create(key, lease.text())
        if tag is None:
            found = self._objects.get(key)
            if found is None:  # given back just now
                tag = self._objects.create(key, lease.text())
            else:
                told = told_by(found[0])
                if told is None or not self._silence.may_be_taken(key, found[1], told):
                    return None
                tag = self._objects.replace(key, lease.text(), found[1])
        return None if tag is None else _Held(lease, tag, now, threading.Lock())

    def _renew(self) -> None:
        """Renew what is held, now and then, until nothing is."""
        while True:
            time.sleep(CLAIM_SECONDS / 4)
            with self._lock:
                held = dict(self._held)
                if not held:
                    self._renewing = None
                    return
            for key, claim in held.items():
                with suppress(TaqError):  # a store that cannot be reached now may be, next time
                    self._renewed(key, claim)

    def _renewed(self, key: str, claim: _Held) -> bool:
        with claim.lock:
            if claim.lost or self._held.get(key) is not claim:
                return not claim.lost
            now = time.monotonic()
            tag = self._objects.replace(key, claim.lease.text(), claim.tag)
            if tag is None:
                claim.lost = True
            else:
                claim.tag, claim.renewed = tag, now
            return not claim.lost

    def check(self, *, sure: bool = False) -> None:
        """Refuse to write on where a claim was lost.

        Parameters
        ----------
        sure
            Ask the store; else only where it has not been asked for long.

        Raises
        ------
        SupersededError
            Another writer has taken an item over.
        """
        with self._lock:
            held = dict(self._held)
        for key, claim in held.items():
            old = time.monotonic() - claim.renewed > CLAIM_SECONDS / 2
            if claim.lost or ((sure or old) and not self._renewed(key, claim)):
                raise taken_over(self._objects.name, key)

    def flag(self, key: str, content: bytes) -> None:
        """Put a flag in the place of the claim, or where nothing is.

        Raises
        ------
        SupersededError
            Another writer has taken the item over.
        """
        with self._lock:
            claim = self._held.get(key)
        if claim is None:
            self._unclaimed(key, content)
            return
        with claim.lock:
            put = None if claim.lost else self._objects.replace(key, content, claim.tag)
            claim.lost = True  # nothing is left to renew, or to give back
        with self._lock:
            self._held.pop(key, None)
        if put is None:
            raise taken_over(self._objects.name, key)

    def _unclaimed(self, key: str, content: bytes) -> None:
        """Flag what was not claimed: an item of which a part was flagged before."""
        if self._objects.create(key, content) is not None:
            return
        found = self._objects.get(key)
        told = None if found is None else told_by(found[0])
        held = found is not None and told is not None
        if held and not self._silence.may_be_taken(key, found[1], told):  # type: ignore[index, arg-type]
            raise taken_over(self._objects.name, key)
        if found is None or self._objects.replace(key, content, found[1]) is None:
            raise taken_over(self._objects.name, key)

    def any_held(self, keys: list[str]) -> bool:
        """Whether any of these objects is a claim that somebody may still hold."""
        for key, found in self._objects.get_many(keys).items():
            told = None if found is None else told_by(found[0])
            if found and told and not self._silence.may_be_taken(key, found[1], told):
                return True
        return False


def taken_over(where: str, key: str) -> SupersededError:
    """The error of a writer whose item another one has taken."""
    what = "another writer has taken this item over while this one was silent"
    remedy = "run again with --resume: what is flagged stays as it is"
    return SupersededError(problem(what, where=f"{where}/{key}", remedy=remedy))

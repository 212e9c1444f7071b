"""One store that is served: opened once, looked at again before each use."""

from __future__ import annotations

import threading
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING

from taqstore.metadata.root import read_root
from taqstore.place.location import Location
from taqstore.serve.served.growth import Identity, identities_of_groups, identity_of_root

if TYPE_CHECKING:
    from taqstore.store.reader import Store

# Far away every look is a request for each group, some of which cost money.
_SECONDS_BETWEEN_LOOKS = 2.0
# Of the time that looks take to the time between them, where they take long.
_LOOK_SHARE = 10


class Served:
    """A store by its address; safe to use from several threads.

    Parameters
    ----------
    address
        As it was given; `location` is how it was understood.

    Raises
    ------
    StoreError
        There is no store there, or it cannot be read.
    """

    def __init__(self, address: str) -> None:
        self.address, self.location = address, Location.parse(address)
        self.backend = self.location.backend()
        self._folder = self.location.real
        self._root = identity_of_root(self.backend, self._folder)
        self._paths = read_root(self.backend, str(self.location)).groups
        self._groups: dict[str, Identity] = {}
        self._store: Store | None = None
        self._version = ""
        self._lock = threading.RLock()
        self._next_look = 0.0

    @property
    def remote(self) -> bool:
        """Whether it is on no local disk; it is then looked at every two seconds at most."""
        return self._folder is None

    def now(self) -> tuple[Store, str]:
        """The store as it is now, and its version."""
        with self._lock:
            self._look()
            assert self._store is not None
            return self._store, self._version

    def group(self, path: str) -> tuple[Store, Identity]:
        """The store with one group as it is now, and what tells that from any other state of it.

        Cheaper than `now` where chunk after chunk is asked for.
        """
        known = self._groups.get(path)
        if known is not None and self._store is not None and not self.remote:
            found = identities_of_groups(self.backend, self._folder, [path])[path]
            if found == known:
                return self._store, known
        store, _ = self.now()
        return store, self._groups.get(path, ())

    def _look(self) -> None:
        if self._store is not None and self.remote and monotonic() < self._next_look:
            return
        began = monotonic()
        # What tells a change is read before what changes: never is old content called new.
        root = identity_of_root(self.backend, self._folder)
        if self._store is None or root != self._root:
            self._paths = read_root(self.backend, str(self.location)).groups
        groups = identities_of_groups(self.backend, self._folder, self._paths)
        if self._store is None:
            from taqstore.store.reader import open_store

            self._store = open_store(self.location)
            # Of format 1, groups are found by looking: such stores are not written to any more.
            self._paths = self._store.root.groups
        elif root != self._root or groups != self._groups:
            changed = [path for path, found in groups.items() if found != self._groups.get(path)]
            self._store = self._store.renewed(*changed)
        self._root, self._groups = root, groups
        self._version = _digest(self._store.digest, root, *sorted(groups.items()))
        took = monotonic() - began
        self._next_look = began + max(_SECONDS_BETWEEN_LOOKS, _LOOK_SHARE * took)


def _digest(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:16]

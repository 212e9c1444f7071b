"""All that is served: stores by name, what they hold in memory, answers that are kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.names import ACTIVATIONS, split_group
from taqstore.serve.served.memory import Memory
from taqstore.serve.served.side_by_side import side_by_side
from taqstore.serve.served.stores import Served

if TYPE_CHECKING:
    import xarray as xr

    from taqstore.store.reader import Store

_T = TypeVar("_T")
HELD, KEPT = 256 << 20, 64 << 20
"""Bytes of groups in memory, and of answers, of all stores together."""


class Service:
    """What endpoints ask. Safe to use from several threads.

    Parameters
    ----------
    addresses
        Of the stores, local or remote. A store is called by the last part of its address; the
        second one of a name has ``-2`` after it.
    held, kept
        Bytes at most of groups in memory, and of answers.
    base
        Gives the parameters of the model that a store names, under DiffusionKit's names, as
        `query.weight_changes` takes them; None: they are not to be had.

    Raises
    ------
    StoreError
        One cannot be read. Of each only its root document is looked at: `open` does it.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        held: int = HELD,
        kept: int = KEPT,
        base: Callable[[Store], Mapping[str, Any]] | None = None,
    ) -> None:
        self.base = base
        self._served: dict[str, Served] = {}
        for address in addresses:
            served = Served(address)
            self._served[_free(served.location.name or "store", self._served)] = served
        self._held, self._kept = Memory(held), Memory(kept)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all stores, in the order they were given."""
        return tuple(self._served)

    def served(self, name: str) -> Served:
        """A store with its address and place.

        Raises
        ------
        MissingError
            No such store is served.
        """
        if name not in self._served:
            raise MissingError(problem(f"no store {name!r}", remedy=meant(name, self.names)))
        return self._served[name]

    def address(self, name: str) -> str:
        """How a store was named on the command line: what a shown command names it by."""
        return self.served(name).address

    def store(self, name: str) -> Store:
        """A store as it is now: what was written since it was last asked for is seen.

        Stores elsewhere are looked at every two seconds at most.

        Raises
        ------
        MissingError
            No such store is served.
        """
        return self.served(name).now()[0]

    def version(self, name: str) -> str:
        """Changes with every write to a store: part of ETags, and of the keys of what is kept."""
        return self.served(name).now()[1]

    def held(
        self,
        name: str,
        path: str,
        *,
        batch: str | None = None,
        channels: bool = False,
        moments: bool = False,
    ) -> xr.Dataset:
        """A group of statistics in memory, in the least room that keeps answers equal to the bit.

        What may be asked of it is told by `analysis.held.held`. A pooled source that is too large
        to be kept is lazy, as the store has it.

        Parameters
        ----------
        batch
            Of these batches alone, as of `query.select`.
        channels
            With the extrema of channels, which are most of the room.
        moments
            With mean and standard deviation of tensors, which take longest to read.
        """
        store, identity = self.served(name).group(path)
        dataset = store[path]
        if "batch" not in dataset.dims and dataset.nbytes > self._held.largest:
            return dataset
        key = name, path, identity, store.digest, batch, channels, moments
        merge = partial(_merged, dataset, batch, channels=channels, moments=moments)
        found: xr.Dataset = self._held.get(key, merge)
        self._held.forget(lambda other: other[:2] != key[:2] or other[:4] == key[:4])
        # A shallow copy: whoever adds a variable adds it to his own.
        return found.copy(deep=False)

    def kept(self, name: str, key: tuple[Hashable, ...], make: Callable[[], _T]) -> _T:
        """What `make` gave when it was last called for this key and version of the store.

        Asked for by several at once, it is made once. What was used least lately makes room.
        """
        version = self.version(name)
        known: Any = self._kept.get((name, version, *key), make)
        self._kept.forget(lambda other: other[0] != name or other[1] == version)
        answer: _T = known
        return answer

    def open(self) -> None:
        """Open every store; for a thread of its own."""
        for served in self._served.values():
            served.now()

    def hold(self) -> None:
        """Hold the observations of the first store; for a thread of its own.

        Most views ask them: whoever asks meanwhile waits for what is left to do.
        """
        for name in self.names[:1]:
            paths = [path for path in self.store(name) if split_group(path)[0] == ACTIVATIONS]
            held = side_by_side(partial(self.held, name), paths)
            for path in paths:
                held(path)


def _merged(dataset: xr.Dataset, batch: str | None, **parts: bool) -> xr.Dataset:
    from taqstore.analysis.held import held
    from taqstore.query.select import select

    part = dataset if batch is None else select(dataset, batch=batch)
    return held(part, **parts)


def _free(name: str, taken: dict[str, Served]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"

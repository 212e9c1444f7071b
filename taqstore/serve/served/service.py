"""All that is served: stores by name, what they hold in memory, answers that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from taqstore.asked import meant
from taqstore.errors import MissingError, problem

if TYPE_CHECKING:
    import xarray as xr

    from taqstore.store.reader import Store

_T = TypeVar("_T")


class Service:
    """What endpoints ask. Safe to use from several threads.

    Parameters
    ----------
    addresses
        Of the stores, local or remote. A store is called by the last part of its address; the
        second one of a name has ``-2`` after it.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        from taqstore.store.reader import open_store

        self._stores = {_name(address): open_store(address) for address in addresses}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all stores, in the order they were given."""
        return tuple(self._stores)

    def store(self, name: str) -> Store:
        """A store as it is now: what was written since it was last asked for is seen.

        Raises
        ------
        MissingError
            No such store is served.
        """
        if name not in self._stores:
            raise MissingError(problem(f"no store {name!r}", remedy=meant(name, self.names)))
        return self._stores[name]

    def version(self, name: str) -> str:
        """Changes with every write to a store: part of ETags, and of the keys of what is kept."""
        return str(self.store(name).digest)

    def held(self, name: str, path: str) -> xr.Dataset:
        """A group of statistics in memory, in the least room that keeps answers equal to the bit.

        Analyses that may be asked of it are those that `analysis.shared.held` names.
        """
        return self.store(name)[path].load()

    def kept(self, name: str, key: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """What `make` gave when it was last called for this key and version of the store.

        Asked for by several at once, it is made once. What was used least lately makes room.
        """
        return make()


def _name(address: str) -> str:
    return str(address).rstrip("/").rpartition("/")[2]

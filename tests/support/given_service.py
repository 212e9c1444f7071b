"""A service over groups that were made up: nothing is written, nothing is opened."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import xarray as xr

from taqstore.serve.served.service import Service

_T = TypeVar("_T")


class GivenService(Service):
    """What views ask, of one store that is a mapping; what is kept is kept for good.

    Parameters
    ----------
    groups
        By path.
    """

    def __init__(self, groups: Mapping[str, xr.Dataset]) -> None:
        self.groups = dict(groups)
        self.base = None
        self.answers: dict[Hashable, Any] = {}

    def store(self, name: str) -> Any:
        """The mapping."""
        return self.groups

    def kept(self, name: str, key: tuple[Hashable, ...], make: Callable[[], _T]) -> _T:
        """The first answer."""
        if key not in self.answers:
            self.answers[key] = make()
        found: _T = self.answers[key]
        return found

    def address(self, name: str) -> str:
        """The name."""
        return name

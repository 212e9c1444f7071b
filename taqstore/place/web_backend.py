"""A store behind a web server: read by names that the server lists as pages."""

from __future__ import annotations

from typing import Any

from taqstore.errors import StoreError, problem
from taqstore.place.zarr_backend import ZarrBackend

_ROOT = "zarr.json"


class WebBackend(ZarrBackend):
    """As any storage object; whether items are there can be told only where folders are listed."""

    def __init__(self, store: Any, url: str) -> None:
        super().__init__(store, url)
        self._lists = False

    def names(self, prefix: str) -> list[str]:
        """Names directly below a prefix."""
        found = super().names(prefix)
        if not found and not self._lists:
            # A server that lists nothing would seem to have no items.
            self._lists = _ROOT in super().names("")
            if not self._lists and self.size(_ROOT) is not None:
                what = "this web server does not list its folders, so nobody can tell what is there"
                remedy = "use one that does, or serve the store as a zip file"
                raise StoreError(problem(what, where=self._url, remedy=remedy))
        return found

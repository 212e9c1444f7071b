"""How often stores are opened: for reading by `open_store`, for writing by `create_store`."""

from __future__ import annotations

from typing import Any

import pytest

from taqstore.place.location import Location


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Modes of the openings so far: `r` or `a`. Each asks its address where the bytes are."""
    modes: list[str] = []
    backend = Location.backend

    def counting(self: Location, *, read_only: bool = True) -> Any:
        modes.append("r" if read_only else "a")
        return backend(self, read_only=read_only)

    monkeypatch.setattr(Location, "backend", counting)
    return modes

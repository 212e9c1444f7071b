"""How often stores are opened: for reading by `open_store`, for writing by `create_store`."""

from __future__ import annotations

from typing import Any

import pytest

from taqstore.store.location import Location


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Modes of the openings so far: `r` or `a`. Every opening asks its address for the root."""
    modes: list[str] = []
    root = Location.root

    def counting(self: Location, *, mode: Any, consolidated: bool = True) -> Any:
        modes.append(mode)
        return root(self, mode=mode, consolidated=consolidated)

    monkeypatch.setattr(Location, "root", counting)
    return modes

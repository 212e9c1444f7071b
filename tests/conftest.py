"""Shared fixtures: where the reference data lies, when it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with real outputs of the source scripts; the test skips where it is absent."""
    if not REFERENCE.is_dir():
        pytest.skip(f"reference data not found beside the repository: {REFERENCE.name}")
    return REFERENCE

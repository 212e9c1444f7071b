"""A Zarr store in a local folder that passes over what a killed writer left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from zarr.storage import LocalStore

PARTIAL = ".partial"


class FolderStore(LocalStore):
    """`LocalStore`, without half-written files in its listings: zarr would warn of each."""

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly under `prefix`."""
        async for name in super().list_dir(prefix):
            if not name.endswith(PARTIAL):
                yield name


def drop_partial_metadata(folder: Path) -> None:
    """Delete half-written metadata. The caller holds the lock under which metadata is written."""
    for path in folder.rglob(f"zarr.*{PARTIAL}"):
        path.unlink(missing_ok=True)

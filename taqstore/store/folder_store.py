"""A Zarr store in a local folder that passes over what a killed writer left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from zarr.storage import LocalStore

PARTIAL = ".partial"


class FolderStore(LocalStore):
    """`LocalStore`, without half-made nodes in its listings: zarr would warn of each."""

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly under `prefix`."""
        async for name in super().list_dir(prefix):
            if not name.endswith(PARTIAL) and not _nameless(self.root / prefix / name):
                yield name


def _nameless(path: Path) -> bool:
    """Whether this is the folder of a node whose metadata never came; `c` holds chunks."""
    return path.name != "c" and path.is_dir() and not (path / "zarr.json").exists()


def drop_partial_metadata(folder: Path) -> None:
    """Delete half-written metadata. The caller holds the lock under which metadata is written."""
    for path in folder.rglob(f"zarr.*{PARTIAL}"):
        path.unlink(missing_ok=True)

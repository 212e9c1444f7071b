"""A local folder as zarr reads it: plain files alone, and no link is followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from taqstore.place.local_backend import LocalBackend
from taqstore.place.plain_files import is_foreign

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class FolderStore(LocalStore):
    """`LocalStore` that refuses what a store has not, and passes over foreign names."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The bytes of a key; StoreError where it is no plain file of the store."""
        # zarr opens whatever stands there: a pipe would wait for ever, a link lead anywhere.
        if LocalBackend(self.root).size(key) is None:
            return None
        return await super().get(key, prototype, byte_range)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly under `prefix`."""
        async for name in super().list_dir(prefix):
            if not is_foreign(name) and not _nameless(self.root / prefix / name):
                yield name


def _nameless(path: Path) -> bool:
    """Whether this is the folder of a node whose metadata never came; `c` holds chunks."""
    return path.name != "c" and path.is_dir() and not (path / "zarr.json").exists()

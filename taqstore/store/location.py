"""Where a store is: a local folder, or any URL that fsspec knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from taqstore.errors import StoreError, problem
from taqstore.names import FORMAT_VERSION

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Location:
    """A store's address. `folder` is None where the store is not on a local disk."""

    url: str
    folder: Path | None

    @classmethod
    def parse(cls, address: str | os.PathLike[str]) -> Location:
        """Understand a path, `file://…` or another URL.

        Raises
        ------
        StoreError
            A `file://` URL that names another host.
        """
        text = os.fspath(address)
        parts = urlsplit(text)
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost"):
                raise StoreError(
                    problem("file URL names another host", where=text, remedy="use file:///path")
                )
            text = unquote(parts.path)
        elif "://" in text:
            return cls(text.rstrip("/"), None)
        folder = Path(text).absolute()
        return cls(str(folder), folder)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """What the store is called: the last part of its address."""
        return str(self).rstrip("/").rsplit("/", 1)[-1]

    def zarr_store(self, *, read_only: bool) -> Any:
        """The Zarr storage object behind this address."""
        from zarr.storage import FsspecStore

        from taqstore.store.folder_store import FolderStore

        if self.folder is not None:
            return FolderStore(self.folder, read_only=read_only)
        return FsspecStore.from_url(self.url, read_only=read_only)

    def root(self, *, mode: Literal["r", "a"], consolidated: bool = True) -> zarr.Group:
        """The root group; modes as in `zarr.open_group`.

        Readers use consolidated metadata where it is, unless told not to: writers drop it before
        any shape changes.
        """
        import zarr

        return zarr.open_group(
            self.zarr_store(read_only=mode == "r"),
            mode=mode,
            use_consolidated=None if mode == "r" and consolidated else False,
        )

    def beside(self, suffix: str) -> Path:
        """A path beside a local store for locks and work files, never inside it."""
        if self.folder is None:
            raise StoreError(problem("not a local store", where=self.url))
        return self.folder.with_name(f".{self.folder.name}.{suffix}")

    def item_lock_name(self, group: str, item: tuple[int, ...]) -> str:
        """File name of an item's lock, free of anything that came from data."""
        digest = hashlib.sha256(f"{group}\0{item}".encode()).hexdigest()[:16]
        return f"{digest}.lock"


def check_format(root: zarr.Group, where: str) -> None:
    """Refuse what is not a taqstore, or is one of a newer format.

    Raises
    ------
    StoreError
        With the format found and the one understood.
    """
    marker: Any = root.attrs.get("taqstore")
    if not isinstance(marker, Mapping) or not isinstance(marker.get("format"), int):
        raise StoreError(
            problem("a Zarr store, but not a taqstore", where=where, remedy="see taqstore ingest")
        )
    if marker["format"] > FORMAT_VERSION:
        raise StoreError(
            problem(
                f"store format {marker['format']} is newer than this taqstore",
                where=where,
                found=f"understood: up to {FORMAT_VERSION}",
                remedy="upgrade taqstore",
            )
        )

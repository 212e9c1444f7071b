"""Where a store is: a folder, a bucket, a zip file, any URL that fsspec knows, a zarr store."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from taqstore.errors import MisuseError, StoreError, problem
from taqstore.place.backend import Backend
from taqstore.place.local_backend import LocalBackend
from taqstore.place.object_backend import ObjectBackend
from taqstore.place.remote.file_systems import fsspec_store, open_file
from taqstore.place.remote.given_stores import client_in, folder_of, is_zarr_store, ready, url_of
from taqstore.place.remote.object_stores import client_of
from taqstore.place.remote.options import ambient
from taqstore.place.remote.schemes import BUCKETS, WEB, is_read_only, scheme_name, scheme_of
from taqstore.place.web_backend import WebBackend
from taqstore.place.zarr_backend import ZarrBackend

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store as ZarrStore

Address: TypeAlias = "str | os.PathLike[str] | Location | ZarrStore"
"""What names a store: a path, a URL, a place that was understood, or a storage object of zarr."""


_ARCHIVE = ".zip"


@dataclass(frozen=True)
class Location:
    """A store's address. `folder` is None where the store is not on a local disk.

    Parameters
    ----------
    options
        How the place is reached: credentials, end points. They are never shown.
    store
        The storage object of zarr that was given in the place of an address.
    """

    url: str
    folder: Path | None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    store: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, address: Any, options: Mapping[str, Any] | None = None) -> Location:
        """Understand a path, `file://…` or another URL, or a storage object of zarr.

        Raises
        ------
        StoreError
            A `file://` URL that names another host.
        MisuseError
            It is no text and no path; or nobody knows such URLs.
        """
        if isinstance(address, Location):
            return address if options is None else replace(address, options=options)
        given: object = address  # whatever it is declared to be
        if is_zarr_store(given):
            return cls._given(given)
        text = os.fspath(given) if isinstance(given, str | os.PathLike) else given
        if not isinstance(text, str):
            what, found = "a store is named by a path or a URL", type(address).__name__
            raise MisuseError(problem(what, found=found, remedy='write it like "store.zarr"'))
        text = text.removeprefix("zip::")  # as fsspec chains them
        parts = urlsplit(text)
        if parts.scheme in ("file", "local"):
            if parts.netloc not in ("", "localhost"):
                raise StoreError(
                    problem("file URL names another host", where=text, remedy="use file:///path")
                )
            text = unquote(parts.path)
        elif "://" in text:
            scheme_of(text)
            scheme, _, rest = text.partition("://")
            url = f"{scheme}://{rest.rstrip('/')}"
            return cls(url, None, dict(ambient() if options is None else options))
        folder = _absolute(text)
        if folder.suffix == _ARCHIVE and not folder.is_dir():
            return cls(str(folder), None)
        return cls(str(folder), folder)

    @classmethod
    def _given(cls, store: Any) -> Location:
        """The location of a storage object of zarr; a folder where it is one."""
        if (folder := folder_of(store)) is not None:
            return cls.parse(folder)
        return cls(url_of(store), None, store=ready(store))

    @property
    def archive(self) -> bool:
        """Whether it is a zip file."""
        return self.folder is None and self.store is None and self.url.endswith(_ARCHIVE)

    @property
    def real(self) -> Path | None:
        """The folder itself, without a link on the way; None where it is on no local disk."""
        return None if self.folder is None else Path(os.path.realpath(self.folder))

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """What the store is called: the last part of its address."""
        return str(self).rstrip("/").rsplit("/", 1)[-1]

    def zarr_store(self, *, read_only: bool) -> Any:
        """The Zarr storage object behind this address.

        Raises
        ------
        StoreError
            What it takes to reach it is not installed, or it refuses; nothing can be written there.
        """
        if not read_only:
            self._check_writable()
        if self.folder is not None:
            from taqstore.place.folder_store import FolderStore

            return FolderStore(self.folder, read_only=read_only)
        if self.store is not None:
            return self.store
        if self.archive:
            return self._archive_store()
        if (client := self._client()) is not None:
            from taqstore.place.bucket_store import BucketStore

            return BucketStore(client, read_only=read_only, url=self.url, options=self.options)
        return fsspec_store(self.url, self.options, read_only=read_only)

    def _archive_store(self) -> Any:
        from taqstore.place.remote.archives import ArchiveStore

        return ArchiveStore(partial(open_file, self.url, self.options), self.url)

    @property
    def read_only(self) -> bool:
        """Whether nobody may write there, whatever they may do; permissions are not asked."""
        if self.store is not None:
            return bool(self.store.read_only)
        return self.archive or ("://" in self.url and is_read_only(self.url))

    def _check_writable(self) -> None:
        if self.store is None and self.read_only:
            place = "a zip file" if self.archive else f"{scheme_name(self.url)}://"
            what = f"{place} can only be read"
            remedy = "write to a folder or a bucket"
            raise StoreError(problem(what, where=self.url, remedy=remedy))
        if self.read_only:
            what, remedy = "this storage object can only be read", "open it for writing"
            raise StoreError(problem(what, where=self.url, remedy=remedy))

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

    def backend(self, *, read_only: bool = True) -> Backend:
        """Where the store's bytes are read and written.

        Raises
        ------
        StoreError
            Python runs without asserts, which zarr needs to parse anything.
        """
        if sys.flags.optimize:
            what = "Python runs without asserts (-O, PYTHONOPTIMIZE), which zarr cannot"
            raise StoreError(problem(what, where=self.url, remedy="unset PYTHONOPTIMIZE"))
        if self.folder is not None:
            return LocalBackend(self.folder)
        if not read_only:
            self._check_writable()
        if (client := self._client()) is not None:
            return ObjectBackend(client, self.url)
        store = self.zarr_store(read_only=read_only)
        return (WebBackend if self._is_web() else ZarrBackend)(store, self.url)

    def _client(self) -> Any:
        """The client of an object store; None where this is none."""
        if self.store is not None:
            return client_in(self.store)
        if self.archive or scheme_name(self.url) not in BUCKETS:
            return None
        return client_of(self.url, self.options)

    def _is_web(self) -> bool:
        return self.store is None and not self.archive and scheme_name(self.url) in WEB.names

    def beside(self, suffix: str) -> Path:
        """A path beside a local store for locks and work files, never inside it."""
        # Work files and locks belong to a store, not to the spelling of its path.
        real = self.real
        if real is None:
            raise StoreError(problem("not a local store", where=self.url))
        return real.with_name(f".{real.name}.{suffix}")

    def same_as(self, other: Location) -> bool:
        """Whether two addresses, however they are spelled, lead to one store."""
        return self.url == other.url if self.real is None else self.real == other.real

    def item_lock_name(self, group: str, item: tuple[int, ...]) -> str:
        """File name of an item's lock, free of anything that came from data."""
        digest = hashlib.sha256(f"{group}\0{item}".encode()).hexdigest()[:16]
        return f"{digest}.lock"


def _absolute(text: str) -> Path:
    try:
        if "\0" in text:
            raise ValueError("a zero byte")
        os.fsencode(text)
        return Path(text).absolute()
    except OSError as error:  # the working folder was deleted, or may not be read
        what, remedy = "no working folder", "change to one that is there, or give a full path"
        found = error.strerror or str(error)
        raise StoreError(problem(what, where=text, found=found, remedy=remedy)) from error
    except ValueError as error:
        raise StoreError(problem("no path", where=text, found=str(error))) from error

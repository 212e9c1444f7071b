"""Places that fsspec reaches: web servers, the Hugging Face Hub, and what else is installed."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import IO, Any

from taqstore.asked import meant
from taqstore.errors import MisuseError, StoreError, problem
from taqstore.place.remote.known_options import service_of
from taqstore.place.remote.object_stores import client_of
from taqstore.place.remote.options import settings_of
from taqstore.place.remote.remote_errors import server_errors
from taqstore.place.remote.schemes import BUCKETS, EXTRA, WEB, scheme_name, scheme_of

_WAIT = 20.0
_PIECE = 1 << 20


def fsspec_store(url: str, options: Mapping[str, Any], *, read_only: bool) -> Any:
    """The Zarr storage object at a URL of fsspec.

    Raises
    ------
    StoreError
        What it takes is not installed, or it cannot be reached.
    MisuseError
        An option that the file system does not know.
    """
    from zarr.storage import FsspecStore

    given = _checked(url, options)
    with _installed(url), server_errors(url):
        return FsspecStore.from_url(url, storage_options=given, read_only=read_only)


def open_file(url: str, options: Mapping[str, Any]) -> str | IO[bytes]:
    """A file that can be sought in: of this disk by its path, or behind a URL."""
    if "://" not in url:
        return url
    if scheme_name(url) in BUCKETS:
        above, _, name = url.rpartition("/")
        client = client_of(above, options)
        with server_errors(url):
            from obstore import open_reader

            reader: Any = open_reader(client, name, buffer_size=_PIECE)
            return _Seekable(reader)
    import fsspec

    with _installed(url), server_errors(url):
        opened: IO[bytes] = fsspec.open(url, "rb", **_checked(url, options)).open()
        return opened

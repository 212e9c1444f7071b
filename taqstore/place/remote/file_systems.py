"""Places that fsspec reaches: web servers, the Hugging Face Hub, and what else is installed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from inspect import signature
from typing import IO, Any

from taqstore.asked import meant
from taqstore.errors import MisuseError, StoreError, problem
from taqstore.place.remote.object_stores import client_of
from taqstore.place.remote.remote_errors import server_errors
from taqstore.place.remote.schemes import BUCKETS, EXTRA, WEB, scheme_name, scheme_of

_CONNECT, _WAIT = 5.0, 15.0
# A file in a bucket is read in blocks, of which so many are kept.
_BLOCK, _KEPT, _SMALL = 1 << 20, 32, 1 << 13


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
            return io.BufferedReader(_Blocks(client, name), buffer_size=_SMALL)
    import fsspec

    with _installed(url), server_errors(url):
        given = {**_checked(url, options), "cache_type": "blockcache", "block_size": _BLOCK}
        opened: IO[bytes] = fsspec.open(url, "rb", **given).open()
        return opened


class _Blocks(io.RawIOBase):
    """An object as a file that can be sought in: read in blocks, of which the last are kept."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__()
        from obstore import get_range, head

        self._size, self._place = int(head(client, name)["size"]), 0

        def block(number: int) -> bytes:
            start = number * _BLOCK
            length = min(_BLOCK, self._size - start)
            return bytes(get_range(client, name, start=start, length=length))

        self._block = lru_cache(maxsize=_KEPT)(block)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + place)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        number, offset = divmod(self._place, _BLOCK)
        if self._place >= self._size or not view.nbytes:
            return 0
        found = self._block(number)[offset : offset + view.nbytes]
        view[: len(found)] = found
        self._place += len(found)
        return len(found)


def _checked(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that the file system of a URL takes.

    Raises
    ------
    MisuseError
        One that it does not know.
    """
    import fsspec

    with _installed(url):
        known = _words(fsspec.get_filesystem_class(scheme_name(url)))
    given = {name: _value(value) for name, value in options.items()}
    waits = {"sock_connect": _CONNECT, "sock_read": _WAIT}
    for name, ours in (("connect_timeout", "sock_connect"), ("read_timeout", "sock_read")):
        if scheme_name(url) in WEB.names and name in given:
            waits[ours] = float(given.pop(name))
    if wrong := next((name for name in given if name not in known), None):
        what = f"{scheme_name(url)}:// has no storage option {wrong!r}"
        raise MisuseError(problem(what, where=url, remedy=meant(wrong, sorted(known))))
    if scheme_name(url) in WEB.names:
        given["client_kwargs"] = {"timeout": _timeout(waits), **given.get("client_kwargs", {})}
    return given


def _value(given: Any) -> Any:
    """A value as it was told; of a mapping, as JSON."""
    if isinstance(given, str) and given.startswith("{"):
        with suppress(ValueError):
            return json.loads(given)
    return given


def _timeout(waits: Mapping[str, float]) -> Any:
    """How long a web server may be silent; a shard may take as long as bytes arrive."""
    return import_module("aiohttp").ClientTimeout(total=None, **waits)


@contextmanager
def _installed(url: str) -> Iterator[None]:
    """Say what is not installed, and how it is."""
    try:
        yield
    except ImportError as error:
        row = scheme_of(url)
        needed = row.needs if row is not None and row.needs else error.name
        what = f"{scheme_name(url)}:// needs {needed or 'a package'}, which is not installed"
        remedy = EXTRA if row is not None and row.needs else str(error)
        raise StoreError(problem(what, where=url, remedy=remedy)) from error
    except ValueError as error:
        what, remedy = "no place that can be reached", "use a path or another URL"
        raise StoreError(problem(what, where=url, found=str(error), remedy=remedy)) from error


def _words(kind: type) -> set[str]:
    """Names of the options of a file system, those of what it is made of included."""
    found: set[str] = set()
    for one in kind.__mro__:
        if "__init__" in vars(one):
            parameters = signature(vars(one)["__init__"]).parameters.values()
            found |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return found - {"self", "asynchronous", "loop"}

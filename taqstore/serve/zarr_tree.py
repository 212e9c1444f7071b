"""`/zarr/<store>/…`: the Zarr v3 tree of a store, as any client reads it.

What is served is what the library shows. Data of an item that is not flagged is not there, whatever
a writer has put down by now, and a file of a flagged one that is missing or of another size is an
error, where a client would take it for empty.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable
from functools import partial
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from taqstore.errors import MissingError, StoreError, problem
from taqstore.place.plain_files import ABSENT, check_folder, is_foreign, open_regular
from taqstore.serve.http.content import (
    Content,
    ContentResponse,
    content_of_file,
    prepared,
)
from taqstore.serve.http.paths import parts_of
from taqstore.serve.http.problems import refusal
from taqstore.serve.http.work import Work
from taqstore.serve.served.service import Service
from taqstore.serve.served.stores import Served

if TYPE_CHECKING:
    from taqstore.layout.item_records import Identity

ZARR = "/zarr"
"""Where the trees of all stores are."""
_CACHE = "no-cache"
_NOTHING = "nothing is here"
# A request each: large, for what comes from far away.
_FAR_PIECE = 1 << 20
_DOCUMENT = "zarr.json"


class _LinkError(Exception):
    """What lies there is no plain file, and may lead out of the store."""


class ZarrTree:
    """Answers requests below `/zarr/`.

    Parameters
    ----------
    service
        What is served.
    work
        Threads that read.
    """

    def __init__(self, service: Service, work: Work) -> None:
        self._service, self._reading = service, work

    async def answer(self, request: Request) -> Response:
        """The file, a part of it, or a list of names."""
        parts = parts_of(request.scope["raw_path"])
        if parts is None or any(map(is_foreign, parts)):
            return refusal(_NOTHING, 404)
        found = await self._reading.run(partial(self._answer, request, parts[1:]), dropped=_close)
        return found if isinstance(found, Response) else ContentResponse(found, self._reading)

    def _answer(self, request: Request, parts: tuple[str, ...]) -> Any:
        """What to answer; a part of a content with its first piece read."""
        name, key = parts[0], "/".join(parts[1:])
        if not name:
            return _listed(request, list(self._service.names), self._service.names)
        try:
            served = self._service.served(name)
            content = None if key.endswith("/") or not key else self._content(name, served, key)
            if content is None:
                return self._names(request, served, key.rstrip("/"))
            return prepared(content, request, _CACHE)
        except MissingError as error:
            return refusal(str(error), 404)
        except _LinkError:
            return refusal("a link, or what is no file, stands here; none is followed", 403)
        except StoreError as error:
            return refusal(str(error), 500)

    def _content(self, name: str, served: Served, key: str) -> Content | None:
        # Flags first: a file that comes between the two looks is there, and not missing.
        try:
            identity = self._identity(served, key)
        except StoreError:
            if not served.remote:
                _inside(served, key)  # a link says more
            raise
        if identity == (0, 0):
            raise MissingError(_NOTHING)
        if served.remote:
            content = _far(self._service, name, served, key, identity)
        else:
            content = _near(served, key, identity)
        if identity is not None and (content is None or content.size != identity[0]):
            what = "a file of a completed item is not the one that was written"
            if content is not None:
                content.close()
            raise StoreError(problem(what, where=key, remedy="see taqstore verify"))
        return content

    def _identity(self, served: Served, key: str) -> Identity | None:
        """Size and fingerprint of a file of data; (0, 0) if there is none, None of any other."""
        before, found, place = key.rpartition("/c/")
        if not found:
            return None
        group = before.rpartition("/")[0]
        store, _ = served.group(group)
        if group not in store.paths:
            return None
        identities = store.identities(group, before.rpartition("/")[2])
        if identities is None:
            return None  # of format 1: no records
        owned = {one.name: len(one.counts) for one in identities.items.layout.owned}
        if identities.name not in owned:
            return None
        numbers = place.split("/")
        if len(numbers) != owned[identities.name] or not all(map(_is_number, numbers)):
            return 0, 0
        try:
            return identities(tuple(map(int, numbers))) or (0, 0)
        except KeyError:
            return 0, 0

    def _names(self, request: Request, served: Served, key: str) -> Response:
        """What lies directly below, as links: how clients list what HTTP cannot list."""
        if key and not served.remote and _inside(served, key) is None:
            return refusal(_NOTHING, 404)
        names = served.backend.names(key)
        if not names or "/c/" in f"{key}/":
            return refusal(_NOTHING, 404)
        return _listed(request, names, ())


def _near(served: Served, key: str, identity: Identity | None) -> Content | None:
    """A file on a local disk; None of a folder, or where there is none."""
    path = _inside(served, key)
    if path is None or path.is_dir():
        return None
    try:
        fd = open_regular(path)
    except ABSENT:
        return None
    return content_of_file(fd, _etag(identity), media_type=_media_type(key))


def _inside(served: Served, key: str) -> Path | None:
    """The place of a key that is there; raises where a link, or what is no file, stands for it."""
    assert served.location.real is not None
    path = served.location.real / key
    try:
        check_folder(path.parent)
        found = os.lstat(path)
    except ABSENT:
        return None
    except StoreError:
        raise _LinkError from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        raise _LinkError
    return path


def _far(
    service: Service, name: str, served: Served, key: str, identity: Identity | None
) -> Content | None:
    """An object elsewhere: small ones are read whole and kept, data is read as it is asked for."""
    backend = served.backend

    def read(start: int, length: int) -> bytes:
        return backend.read_range(key, start, length) or b""

    if identity is not None:
        return Content(identity[0], _etag(identity), read, piece=_FAR_PIECE)
    if "/c/" in key and (size := backend.size(key) or 0) > _FAR_PIECE:  # of format 1
        tag = f'"{service.version(name)}-{size:x}"'
        return Content(
            size, tag, lambda at, n: backend.read_range(key, at, n) or b"", piece=_FAR_PIECE
        )
    raw = service.kept(name, ("file", key), lambda: backend.read(key))
    if raw is None:
        return None
    etag = f'"{sha256(raw).hexdigest()[:32]}"'
    return Content(len(raw), etag, lambda start, n: raw[start : start + n], _media_type(key))


def _listed(request: Request, names: Iterable[str], folders: Collection[str]) -> Response:
    """Names as links, which is how HTTP says what is there; texts of data are escaped."""
    base = request.scope["raw_path"].decode("ascii").rstrip("/")
    links = "".join(
        f'<li><a href="{base}/{quote(name, safe="")}{"/" * (name in folders)}">{escape(name)}</a>'
        for name in names
    )
    page = f"<!DOCTYPE html><html lang='en'><title>names</title><ul>{links}</ul></html>"
    return HTMLResponse(page, headers={"Cache-Control": _CACHE})


def _is_number(text: str) -> bool:
    """Whether it is how a chunk is numbered: one spelling for each."""
    return text.isascii() and text.isdecimal() and len(text) < 20 and str(int(text)) == text


def _etag(identity: Identity | None) -> str:
    return "" if identity is None else f'"{identity[0]:x}-{identity[1]:08x}"'


def _media_type(key: str) -> str:
    return "application/json" if key.endswith(_DOCUMENT) else "application/octet-stream"


def _close(found: Any) -> None:
    if not isinstance(found, Response):
        found.content.close()

"""Files as answers: in parts, on conditions, a piece in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taqstore.serve.http.problems import refusal
from taqstore.serve.http.ranges import UnsatisfiableError, is_known, may_continue, part_of
from taqstore.serve.http.work import Work

PIECE = 128 << 10
"""Bytes of a file in memory for a client, however slowly it takes them."""
_SENT = 64 << 10
KNOWN_KEY = "closed"
"""In a request's state: a function that tells whether the client has gone."""


@dataclass(frozen=True)
class Content:
    """Bytes that may be asked for in parts.

    Parameters
    ----------
    size
        Bytes of the whole.
    etag
        Equal tags: equal bytes.
    read
        So many bytes from a place on; called in a thread.
    media_type
        As in HTTP.
    modified
        Seconds since 1970, where known.
    close
        Called when nothing more is read.
    piece
        Bytes that are read at once.
    """

    size: int
    etag: str
    read: Callable[[int, int], bytes]
    media_type: str = "application/octet-stream"
    modified: float | None = None
    close: Callable[[], None] = lambda: None
    piece: int = PIECE


def content_of_file(fd: int, etag: str = "", **particulars: Any) -> Content:
    """The content of an open file, which is closed with it.

    Parameters
    ----------
    etag
        Default: made of what the file system tells.
    """
    found = os.fstat(fd)
    own = f'"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"'
    return Content(
        found.st_size,
        etag or own,
        lambda start, length: os.pread(fd, length, start),
        modified=found.st_mtime,
        close=partial(os.close, fd),
        **particulars,
    )


@dataclass
class Part:
    """What is sent of a content, the first piece of it read."""

    content: Content
    status: int
    headers: dict[str, str]
    start: int
    length: int
    first: bytes


def prepared(content: Content, request: Request, cache: str) -> Response | Part:
    """What to answer, the first piece read; called in a thread."""
    # What may be sent compressed has several spellings.
    weak = content.media_type == "application/json"
    headers = {
        "ETag": f"W/{content.etag}" if weak else content.etag,
        "Cache-Control": cache,
        "Accept-Ranges": "bytes",
        "Content-Type": content.media_type,
    }
    if content.modified is not None:
        headers["Last-Modified"] = formatdate(content.modified, usegmt=True)
    asked = request.headers
    if is_known(asked.get("if-none-match"), content.etag):
        content.close()
        return Response(status_code=304, headers=headers)
    try:
        proceed = request.method == "GET" and may_continue(asked.get("if-range"), headers["ETag"])
        part = part_of(asked.get("range"), content.size) if proceed else None
    except UnsatisfiableError:
        content.close()
        there = {"Content-Range": f"bytes */{content.size}"}
        return refusal(f"there are {content.size} bytes", 416, there)
    start, length = part or (0, content.size)
    headers["Content-Length"] = str(length)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{content.size}"
    wanted = min(length, content.piece) if request.method == "GET" else 0
    try:
        first = _all(content, start, wanted)
    except BaseException:
        content.close()
        raise
    return Part(content, 206 if part else 200, headers, start, length, first)


def _all(content: Content, start: int, length: int) -> bytes:
    found = content.read(start, length) if length else b""
    if len(found) != length:
        raise EOFError("the file has become shorter while it was sent")
    return found


class ContentResponse(Response):
    """Sends a part piece by piece: the next is read when the client has taken the last."""

    def __init__(self, part: Part, work: Work) -> None:
        super().__init__(status_code=part.status)
        self._part, self._reading = part, work
        self.raw_headers = [(k.lower().encode(), v.encode()) for k, v in part.headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer."""
        part, piece = self._part, self._part.first
        is_gone = scope.get("state", {}).get(KNOWN_KEY, lambda: False)
        begin = {"type": "http.response.start", "status": part.status, "headers": self.raw_headers}
        try:
            await send(begin)
            left = part.length if scope["method"] == "GET" else 0
            while left and not is_gone():
                await send_in_pieces(send, piece, more=left > len(piece))
                left -= len(piece)
                if left:
                    start, most = part.start + part.length - left, part.content.piece
                    task = partial(_all, part.content, start, min(left, most))
                    piece = await self._reading.run(task)
            if not part.length or scope["method"] != "GET":
                await send({"type": "http.response.body", "body": b""})
        finally:
            part.content.close()


async def send_in_pieces(send: Send, body: bytes, *, more: bool) -> None:
    """Send bytes so that few of them wait in memory for the client to take them."""
    view = memoryview(body)
    for start in range(0, len(view), _SENT):
        piece = view[start : start + _SENT]
        last = start + _SENT >= len(view)
        message = {
            "type": "http.response.body",
            "body": bytes(piece),
            "more_body": more or not last,
        }
        await send(message)

"""A server on loopback that keeps objects as Google Cloud Storage does, by its XML protocol.

As much of it as a store asks for: PUT by generation (`x-goog-if-generation-match`), GET with
ranges, HEAD, DELETE, and listings. ETags are told, and compared by nobody. Uploads in parts are
left out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from obstore.store import GCSStore
from zarr.storage import ObjectStore

_CONDITION, _GENERATION = "x-goog-if-generation-match", "x-goog-generation"
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class GcsServer(ThreadingHTTPServer):
    """Its buckets are there when they are asked for."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.generations, self.busy = 1_700_000_000_000_000, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def account(self) -> str:
        """A service account that leads here, as JSON."""
        none = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        url = f"http://127.0.0.1:{self.server_port}"
        return json.dumps({"gcs_base_url": url, "disable_oauth": True, **none})


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GcsServer

    def do_PUT(self) -> None:
        key, content = self._key(), self.rfile.read(int(self.headers["Content-Length"]))
        asked = self.headers.get(_CONDITION)
        with self.server.busy:
            found = self.server.objects.get(key)
            if asked is not None and int(asked) != (0 if found is None else found[1]):
                self._say(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            self.server.generations += 1
            made = self.server.objects[key] = content, self.server.generations
        self._say(200, b"", of=made)

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self._say(200, self._listing())
            return
        found = self.server.objects.get(self._key())
        if found is None:
            self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        if asked := self.headers.get("Range"):
            start, _, last = asked.removeprefix("bytes=").partition("-")
            part = found[0][int(start) : int(last) + 1]
            where = f"bytes {start}-{int(start) + len(part) - 1}/{len(found[0])}"
            self._say(206, part, of=found, headers={"Content-Range": where})
            return
        self._say(200, found[0], of=found)

    do_HEAD = do_GET  # noqa: N815

    def do_DELETE(self) -> None:
        self._say(204 if self.server.objects.pop(self._key(), None) else 404, b"")

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")

    def _listing(self) -> bytes:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        bucket, prefix = f"{self._key()}/", query.get("prefix", "")
        folders, objects = set[str](), ""
        with self.server.busy:
            every = sorted(self.server.objects.items())
        for name, (content, generation) in every:
            key = name.removeprefix(bucket)
            rest = key.removeprefix(prefix)
            if not name.startswith(bucket) or not key.startswith(prefix):
                continue
            if "delimiter" in query and "/" in rest:
                folders.add(f"{prefix}{rest.partition('/')[0]}/")
                continue
            objects += (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                f"<Generation>{generation}</Generation><ETag>{_etag(content)}</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        told = "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        return f"<ListBucketResult>{objects}{told}</ListBucketResult>".encode()

    def _say(
        self,
        status: int,
        body: bytes,
        *,
        of: tuple[bytes, int] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        told = {"Content-Length": str(len(body)), "Last-Modified": _DATE, **(headers or {})}
        if of is not None:
            told |= {"ETag": _etag(of[0]), _GENERATION: str(of[1])}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _etag(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'


@pytest.fixture
def google() -> Iterator[Callable[[str], Any]]:
    """Makes storage objects of zarr that lie in a bucket of Google's, by prefix."""
    server = GcsServer()

    def made(prefix: str) -> Any:
        config: Any = {"service_account_key": server.account}
        options: Any = {"allow_http": True}
        client = GCSStore("bucket", prefix=prefix, config=config, client_options=options)
        return ObjectStore(client)

    yield made
    server.shutdown()
    server.server_close()

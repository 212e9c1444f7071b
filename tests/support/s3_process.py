"""The process of `support.s3_server`: moto's S3 behind a layer that counts, orders and injects.

moto compares If-Match and If-None-Match, but not atomically with the write; here requests for
objects are applied one at a time, as S3 documents their outcome. Serves on loopback and prints its
port; ends when its standard input does, so that it never outlives the test that began it.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import ThreadedWSGIServer

Answer = tuple[str, list[tuple[str, str]], bytes]

CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
IGNORED = {"ignore-conditions": CONDITIONS, "ignore-if-match": CONDITIONS[:1]}
# Parts, which take long, go side by side. moto closes an object that is replaced as it is read.
ALONE = ("PUT", "COMPLETE", "DELETE", "DELETES", "LIST", "GET", "HEAD")
CODES = {
    403: ("403 Forbidden", "AccessDenied"),
    409: ("409 Conflict", "ConditionalRequestConflict"),
    429: ("429 Too Many Requests", "TooManyRequests"),
    500: ("500 Internal Server Error", "InternalError"),
    501: ("501 Not Implemented", "NotImplemented"),
    503: ("503 Service Unavailable", "SlowDown"),
}
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away and resets


class Layer:
    """A WSGI application around moto's: what it was asked, and what it is to do wrong."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._log: list[dict[str, Any]] = []
        self._faults: dict[int, dict[str, Any]] = {}
        self._busy = threading.Lock()
        self._writes = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"].startswith("/_control/"):
            body = json.dumps(self._control(environ)).encode()
            start("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        asked = described(environ)
        fault = self._due(asked)
        status, headers, body = self._answer(environ, asked, fault)
        with self._busy:
            self._log.append({**asked, "status": int(status[:3]), "sent": len(body)})
        if fault.get("kind") == "reset":
            if fault["when"] == "middle":
                start(status, headers)(body[: len(body) // 2])
            drop(environ)
        start(status, headers)
        return [body]

    def _answer(
        self, environ: dict[str, Any], asked: dict[str, Any], fault: dict[str, Any]
    ) -> Answer:
        kind, before = fault.get("kind"), fault.get("when") == "before"
        if kind == "slow":
            time.sleep(fault["seconds"])
        if kind == "reset" and before:
            return "000 reset", [], b""
        if kind == "status" and before:
            receive(environ)
            return refusal(asked, fault)
        for name in IGNORED.get(str(kind), ()):
            environ.pop(name, None)
        applied = self._applied(environ, asked)
        return refusal(asked, fault) if kind == "status" else applied

    def _applied(self, environ: dict[str, Any], asked: dict[str, Any]) -> Answer:
        """What moto says; what changes a bucket or looks at it is seen one after another."""
        receive(environ)
        said: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[..., Any]:
            said[:] = [status, headers]
            return lambda data: None

        if asked["what"] in ALONE:
            with self._writes:
                body = b"".join(self._application(environ, start))
        else:
            body = b"".join(self._application(environ, start))
        return said[0], said[1], body

    def _due(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._busy:
            for fault in self._faults.values():
                if not matches(fault, asked):
                    continue
                fault["seen"] += 1
                number = fault["seen"] - fault["skip"]
                if number > 0 and (fault["times"] is None or number <= fault["times"]):
                    return dict(fault)
        return {}

    def _control(self, environ: dict[str, Any]) -> Any:
        """Commands of the other end: `log`, `mark`, `fault`, `heal` and `drop`."""
        command = environ["PATH_INFO"].rpartition("/")[2]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        given = json.loads(environ["wsgi.input"].read(length) or b"{}")
        with self._busy:
            if command == "log":
                return self._log[given["since"] :]
            if command == "mark":
                return len(self._log)
            if command == "fault":
                number = max(self._faults, default=0) + 1
                self._faults[number] = {**given, "seen": 0}
                return number
            if command == "heal":
                return self._faults.pop(given["number"])["seen"]
        if command == "drop":
            s3_backends.bucket_accounts.pop(given["bucket"], None)  # else its name stays taken
            buckets = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets
            return buckets.pop(given["bucket"], None) is not None
        raise ValueError(f"no command {command}")


def described(environ: dict[str, Any]) -> dict[str, Any]:
    """Method, operation, bucket and key of a request, and whether it has a condition."""
    method = environ["REQUEST_METHOD"]
    raw = environ.get("REQUEST_URI", "").partition("?")[0] or environ["PATH_INFO"]
    bucket, _, key = unquote(raw).lstrip("/").partition("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return {
        "method": method,
        "what": operation(method, key, query),
        "bucket": bucket,
        "key": key or "".join(query.get("prefix", [])),
        "conditional": any(name in environ for name in CONDITIONS),
        "range": environ.get("HTTP_RANGE", ""),
        "received": int(environ.get("CONTENT_LENGTH") or 0),
    }


def operation(method: str, key: str, query: dict[str, list[str]]) -> str:
    """The operation in a word: that of the method, but for listings and uploads in parts."""
    if not key:
        return {"GET": "LIST", "POST": "DELETES"}.get(method, f"{method} bucket")
    if "uploads" in query:
        return "CREATE"
    if "uploadId" in query:
        return {"PUT": "PART", "POST": "COMPLETE", "DELETE": "ABORT"}.get(method, method)
    return method


def matches(fault: dict[str, Any], asked: dict[str, Any]) -> bool:
    return (
        (not fault["what"] or asked["what"] in fault["what"])
        and (not fault["bucket"] or asked["bucket"] == fault["bucket"])
        and bool(re.search(fault["key"], asked["key"]))
        and (not fault["conditional"] or asked["conditional"])
    )


def receive(environ: dict[str, Any]) -> None:
    """Take the whole body first: nobody waits for a slow sender while objects are written."""
    length = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(int(length)) if length else b""
    if environ.get("wsgi.input_terminated"):
        body += environ["wsgi.input"].read()
    environ["wsgi.input"] = io.BytesIO(body)


def refusal(asked: dict[str, Any], fault: dict[str, Any]) -> Answer:
    """An error of S3, as XML; HEAD has no body."""
    status, code = CODES[fault["status"]]
    code = fault["code"] or code
    text = f"<Error><Code>{code}</Code><Message>injected: {code}</Message></Error>".encode()
    body = b"" if asked["method"] == "HEAD" else b'<?xml version="1.0" encoding="UTF-8"?>' + text
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    if fault["retry_after"] is not None:
        headers.append(("Retry-After", str(fault["retry_after"])))
    return status, headers, body


def drop(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    raise ConnectionResetError("injected")


class Handler(MotoRequestHandler):
    """No line a request; an answer is sent at once, and then the connection is closed.

    werkzeug's own sends it in parts and looks for what else comes: that took most of the time. It
    may not know where a request ends; here each was read whole.
    """

    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        said: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], Any]:
            said[:] = [status, headers]
            return lambda data: self.wfile.write(head(self.command, status, headers, data) + data)

        try:
            body = b"".join(self.server.app(self.make_environ(), start))
            self.wfile.write(head(self.command, *said, body) + body)
        except ConnectionError:
            pass
        self.close_connection = True

    def log_request(self, *_: Any, **__: Any) -> None:
        pass

    def connection_dropped(self, *_: Any, **__: Any) -> None:
        self.close_connection = True


def head(method: str, status: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """Status line and headers; a length where none was said and there may be a body."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    silent = method == "HEAD" or status[:3] in ("204", "304")
    if not silent and not any(name.lower() == "content-length" for name, _ in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Server(ThreadedWSGIServer):
    """Closes without the farewell that would turn a reset into an orderly end."""

    request_queue_size = 512

    def shutdown_request(self, request: Any) -> None:
        if not request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8).startswith(RESET[:1]):
            super().shutdown_request(request)
            return
        self.close_request(request)


def serve() -> None:
    application = Layer(create_backend_app("s3"))
    server = Server("127.0.0.1", 0, application, handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    serve()

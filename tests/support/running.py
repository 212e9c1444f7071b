"""The service on a port of this machine, in a thread of the test."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taqstore.serve.app import Rules, application
from taqstore.serve.http.server import Server
from taqstore.serve.served.service import Service


@dataclass(frozen=True)
class Answer:
    """What came back; header names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Running:
    """A service that answers; `service` is what it serves."""

    port: int
    service: Service
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """An answer to a path exactly as it is written; `If_Match` is the header If-Match."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in {**self.headers, **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        body = answer.read()
        connection.close()
        return Answer(answer.status, found, body)


@contextmanager
def running(*addresses: str | Path, **options: Any) -> Iterator[Running]:
    """The service over some stores; options as of `Rules`."""
    service = Service([str(address) for address in addresses])
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(application(service, Rules(**options)))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield Running(listener.getsockname()[1], service)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()

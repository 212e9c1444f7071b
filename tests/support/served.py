"""A running `taqstore serve`: the real process over stores, asked by plain HTTP, stopped surely."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

# The command as a user has it; ends with its standard input, so that it never outlives a test.
_COMMAND = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(9)), daemon=True).start()
sys.argv[0] = "taqstore"
from taqstore.cli import main
main()
"""
_ADDRESS = re.compile(r"http://[^\s/]+:(\d+)")
SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What a server answered; names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Served:
    """A server process.

    Parameters
    ----------
    stores
        Addresses, as on the command line.
    options
        More words of the command. The port is a free one unless they name one.
    """

    def __init__(self, stores: Sequence[Path | str], *options: str) -> None:
        port = () if "--port" in options else ("--port", "0")
        self.command = ["serve", *map(str, stores), *port, *options]
        self.said: list[str] = []
        self._lines = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *self.command],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self.port = self._announced()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._lines:
                self.said.append(line.rstrip("\n"))
                self._lines.notify_all()
        with self._lines:
            self._lines.notify_all()

    def _announced(self) -> int:
        """The port that it says, once it answers there."""
        end = time.monotonic() + SECONDS
        with self._lines:
            while not (found := _ADDRESS.search("\n".join(self.said))):
                ended = not self._reader.is_alive() or time.monotonic() > end
                if ended:
                    self.close()
                    raise AssertionError(f"no address: {self.said}")
                self._lines.wait(0.2)
        port = int(found[1])
        try:
            wait_for(port)
        except AssertionError:
            self.close()
            raise
        return port

    @property
    def origin(self) -> str:
        """Where it is, as a browser names it."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, path: str = "/", **query: Any) -> str:
        """An address of the server."""
        return f"{self.origin}{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        **query: Any,
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
            connection.request(method, target, body=body, headers=dict(headers or {}))
            found = connection.getresponse()
            named = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, named, found.read())
        finally:
            connection.close()

    def document(self, path: str, **query: Any) -> Any:
        """JSON of an endpoint below `/api`; anything but 200 fails."""
        answer = self.ask(f"/api{quote(path)}", **query)
        assert answer.status == 200, (path, query, answer.status, answer.body[:500])
        return answer.document

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def raw(self, request: bytes, *, whole: bool = True) -> bytes:
        """All that it sends for these bytes till it closes.

        `whole`: they are a request that asks for the end of the connection; else the end is said
        here, which a server may take for a client that has gone.
        """
        with self.connect() as connection:
            try:
                connection.sendall(request)
                if not whole:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:  # refused before all was sent
                pass
            return received(connection)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self._ended()

    def _ended(self) -> int:
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._reader.join(10)
        return code

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it in whatever state it is, and close its pipes."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes or resets."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def free_port() -> int:
    """A port of loopback where nobody listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port of loopback."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nobody listens on {port}")


@contextmanager
def serving(*stores: Path | str, options: Sequence[str] = ()) -> Iterator[Served]:
    """A server that ends with the block; whatever it said of a fault fails the test."""
    served = Served(stores, *options)
    try:
        yield served
    finally:
        served.close()
    faults = [line for line in served.said if "Traceback" in line or "Error" in line]
    assert faults == [], "\n".join(served.said)

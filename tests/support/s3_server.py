"""An S3 server on loopback for tests: counts requests and does wrong what it is told to.

Two fixtures, both made by name in the arguments of a test:

`bucket` (a str, `s3://…`) is a fresh empty bucket; the environment names the server and its
credentials (AWS_…), so that plain `s3://` addresses work in this process and in those it starts.

`s3` (an `S3Server`, one process a session) is the server behind it::

    def test_something(s3: S3Server, bucket: str) -> None:
        with s3.counted() as count:
            open_store(f"{bucket}/run.zarr")
        assert count.total <= 8, count          # also count["PUT"], count.keys("GET"), count.log
        with s3.fault(status=503, retry_after=1, what="PUT", key="flags", skip=3, times=2):
            ...                                 # the 4th and 5th PUT of such keys are refused

`what` is GET, HEAD, PUT, DELETE, LIST, DELETES (many at once), or of a multipart upload CREATE,
PART, COMPLETE, ABORT; one word, several in a tuple, or None for all. `key` is a regular
expression searched in the key (of a listing: in its prefix). Conditions (If-None-Match: *,
If-Match) are answered atomically, with 412, as S3 does.

`s3.options()` are the storage options for those who do not take the environment. A `closed_port`
is an address where nobody listens.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

EXPIRED = {"status": 403, "code": "ExpiredToken"}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Request:
    """One request as the server saw it; `status` 0 where the connection was reset first."""

    method: str
    what: str
    bucket: str
    key: str
    status: int
    conditional: bool
    range: str
    received: int
    sent: int


@dataclass
class Count:
    """What was asked between entering and leaving `counted`."""

    log: list[Request] = field(default_factory=list)
    since: int = 0

    @property
    def total(self) -> int:
        return len(self.log)

    def __getitem__(self, what: str) -> int:
        return sum(request.what == what for request in self.log)

    def keys(self, what: str) -> list[str]:
        return [request.key for request in self.log if request.what == what]

    def __str__(self) -> str:
        many = Counter(f"{request.what} {request.key}" for request in self.log)
        lines = [f"{number:4} {name}" for name, number in many.most_common(40)]
        return "\n".join([f"{self.total} requests", *lines])


class S3Server:
    """The other end of `support.s3_process`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("s3_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self._buckets = 0

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to reach the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def options(self) -> dict[str, str]:
        """The same as storage options in the spelling of obstore."""
        return {
            "endpoint": self.url,
            "allow_http": "true",
            "access_key_id": "testing",
            "secret_access_key": "testing",
            "region": "us-east-1",
        }

    def words(self) -> list[str]:
        """The same for a command line."""
        pairs = self.options().items()
        return [word for name, value in pairs for word in ("--storage-option", f"{name}={value}")]

    def make_bucket(self, name: str = "") -> str:
        """Name of a new bucket: the one asked for, or one of its own."""
        self._buckets += 1
        name = name or f"bucket-{self._buckets}"
        with DIRECT.open(urllib.request.Request(f"{self.url}/{name}", method="PUT")):
            return name

    def drop_bucket(self, name: str) -> None:
        """Forget a bucket with all that it holds."""
        self._ask("drop", bucket=name)

    @contextmanager
    def counted(self) -> Iterator[Count]:
        """Requests made within; the count is there once it is left."""
        count = Count(since=self._ask("mark"))
        try:
            yield count
        finally:
            count.log = [Request(**entry) for entry in self._ask("log", since=count.since)]

    def asked_since(self, count: Count) -> int:
        """How many requests there were since a count began that goes on."""
        return int(self._ask("mark")) - count.since

    @contextmanager
    def fault(
        self,
        kind: str = "status",
        *,
        status: int = 500,
        code: str | None = None,
        retry_after: float | None = None,
        seconds: float = 0,
        when: str = "before",
        what: str | Sequence[str] | None = None,
        key: str = "",
        bucket: str | None = None,
        conditional: bool = False,
        skip: int = 0,
        times: int | None = None,
    ) -> Iterator[None]:
        """Answer the requests that match wrongly while within.

        Parameters
        ----------
        kind
            `status` (refuse with `status` and `code`), `reset` (end the connection), `slow` (wait
            `seconds`, then answer), `ignore-conditions` (as servers that know none),
            `ignore-if-match` (as those that know If-None-Match alone).
        when
            `before` or `after` the request was applied; of `reset` also `middle`: half of the
            answer is sent.
        skip, times
            How many that match go well first, and how many are then answered wrongly (None: all).
        """
        given = {"kind": kind, "status": status, "code": code, "retry_after": retry_after}
        given |= {"seconds": seconds, "when": when, "key": key, "bucket": bucket}
        given |= {"what": [what] if isinstance(what, str) else what}
        given |= {"conditional": conditional, "skip": skip, "times": times}
        number = self._ask("fault", **given)
        try:
            yield
        finally:
            self._ask("heal", number=number)

    def _ask(self, command: str, **given: Any) -> Any:
        body = json.dumps(given).encode()
        with DIRECT.open(f"{self.url}/_control/{command}", body) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    name = s3.make_bucket()
    yield f"s3://{name}"
    s3.drop_bucket(name)


@pytest.fixture
def closed_port() -> str:
    """URL of a port of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"

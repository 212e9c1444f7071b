"""The server that remote tests run against does what S3 documents, and wrong only what it is told.

Asked by plain HTTP, so that no client retries or interprets an answer.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.s3_server import EXPIRED, S3Server

TESTS = Path(__file__).parents[1]
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)  # the server wants a signature and does not compute it


class Plain:
    """Requests to one bucket: status, headers and body as they came."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        self._port = server.port
        self._bucket = bucket.removeprefix("s3://")

    def __call__(
        self, method: str, key: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            named = {"Authorization": SIGNED} | named
            connection.request(method, f"/{self._bucket}/{key}", body, named)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()


@pytest.fixture
def ask(s3: S3Server, bucket: str) -> Plain:
    return Plain(s3, bucket)


def test_the_name_of_a_bucket_that_was_dropped_is_free_again(s3: S3Server) -> None:
    for _ in range(2):
        ask = Plain(s3, s3.make_bucket("used-twice"))
        assert ask("GET", "a")[0] == 404
        assert ask("PUT", "a", b"one")[0] == 200
        s3.drop_bucket("used-twice")


def test_objects_are_made_where_none_is(ask: Plain) -> None:
    assert ask("PUT", "a", b"one", If_None_Match="*")[0] == 200
    assert ask("PUT", "a", b"two", If_None_Match="*")[0] == 412
    assert ask("GET", "a")[2] == b"one"


def test_objects_are_replaced_where_they_are_unchanged(ask: Plain) -> None:
    first = ask("PUT", "a", b"one")[1]["ETag"]
    second = ask("PUT", "a", b"two", If_Match=first)[1]["ETag"]
    status, _, body = ask("PUT", "a", b"three", If_Match=first)
    assert (status, b"PreconditionFailed" in body) == (412, True)
    assert ask("GET", "a")[1]["ETag"] == second
    assert ask("PUT", "gone", b"x", If_Match=first)[0] == 404
    assert ask("GET", "a", If_None_Match=second)[0] == 304


def test_one_of_many_makes_an_object(ask: Plain) -> None:
    def made(number: int) -> int:
        return ask("PUT", "claim", str(number).encode(), If_None_Match="*")[0]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(made, range(16)))
    assert sorted(answers) == [200] + [412] * 15
    assert ask("GET", "claim")[2] == str(answers.index(200)).encode()


def test_no_replacement_is_lost(ask: Plain) -> None:
    ask("PUT", "counter", b"0")

    def count(_: int) -> None:
        for _ in range(5):
            while True:
                _, headers, body = ask("GET", "counter")
                more = str(int(body) + 1).encode()
                if ask("PUT", "counter", more, If_Match=headers["ETag"])[0] == 200:
                    break

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(count, range(6)))
    assert ask("GET", "counter")[2] == b"30"


def test_objects_are_read_whole_while_they_are_replaced(ask: Plain) -> None:
    contents = [bytes([n]) * 50_000 for n in range(40)]
    ask("PUT", "a", contents[0])

    def read(_: int) -> set[tuple[int, bytes]]:
        return {(status, body) for status, _, body in (ask("GET", "a") for _ in range(40))}

    with ThreadPoolExecutor(4) as pool:
        found = pool.map(read, range(3))
        for content in contents:
            ask("PUT", "a", content)
    for answers in found:
        assert answers <= {(200, content) for content in contents}


def test_uploads_in_parts_are_there_when_they_are_complete(ask: Plain, s3: S3Server) -> None:
    pieces = [os.urandom(6 << 20), os.urandom(6 << 20), b"end"]
    with s3.counted() as count:
        started = ask("POST", "big?uploads")[2].decode()
        upload = re.findall("<UploadId>(.*)</UploadId>", started)[0]

        def put(number: int) -> str:
            address = f"big?partNumber={number + 1}&uploadId={upload}"
            return ask("PUT", address, pieces[number])[1]["ETag"]

        with ThreadPoolExecutor(3) as pool:
            tags = list(pool.map(put, range(3)))
        assert ask("GET", "big")[0] == 404
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            for number, tag in enumerate(tags, 1)
        )
        complete = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        assert ask("POST", f"big?uploadId={upload}", complete, If_None_Match="*")[0] == 200
        assert ask("GET", "big")[2] == b"".join(pieces)
        status, _, body = ask("GET", "big", Range="bytes=6291450-6291460")
    assert (status, body) == (206, b"".join(pieces)[6291450:6291461])
    asked = (count["CREATE"], count["PART"], count["COMPLETE"], count["GET"], count.total)
    assert asked == (1, 3, 1, 3, 8)
    assert count.keys("PART") == ["big"] * 3
    assert count.log[-1].range == "bytes=6291450-6291460"


def test_listings_are_counted_as_such(ask: Plain, s3: S3Server) -> None:
    for name in ("a/1", "a/2", "b"):
        ask("PUT", name, b"x")
    with s3.counted() as count:
        listed = ask("GET", "?list-type=2&prefix=a/")[2]
        ask("HEAD", "b")
        ask("DELETE", "b")
    assert re.findall(b"<Key>(.*?)</Key>", listed) == [b"a/1", b"a/2"]
    assert [(request.what, request.key) for request in count.log] == [
        ("LIST", "a/"),
        ("HEAD", "b"),
        ("DELETE", "b"),
    ]


def test_errors_are_those_asked_for_and_no_more(ask: Plain, s3: S3Server) -> None:
    ask("PUT", "a/flag", b"x")
    with s3.fault(status=503, retry_after=2, what="GET", key="flag", skip=1, times=2):
        assert ask("GET", "a/other")[0] == 404
        answers = [ask("GET", "a/flag") for _ in range(4)]
        assert ask("PUT", "a/flag", b"y")[0] == 200
    assert [status for status, _, _ in answers] == [200, 503, 503, 200]
    assert answers[1][1]["Retry-After"] == "2"
    assert b"<Code>SlowDown</Code>" in answers[1][2]
    with s3.fault(**EXPIRED):
        status, _, body = ask("GET", "a/flag")
    assert (status, b"<Code>ExpiredToken</Code>" in body) == (403, True)
    assert ask("GET", "a/flag")[2] == b"y"


@pytest.mark.parametrize(("when", "kept"), [("before", 404), ("after", 200)])
def test_a_reset_is_before_or_after_the_write(
    ask: Plain, s3: S3Server, when: str, kept: int
) -> None:
    with (
        s3.fault("reset", when=when, what="PUT", times=1),
        pytest.raises((ConnectionError, http.client.RemoteDisconnected)),
    ):
        ask("PUT", "a", b"x")
    assert ask("GET", "a")[0] == kept
    with s3.fault(status=500, when=when, what="PUT", key="b"):
        assert ask("PUT", "b", b"x")[0] == 500
    assert ask("GET", "b")[0] == kept


def test_an_answer_can_break_off_in_the_middle(ask: Plain, s3: S3Server) -> None:
    ask("PUT", "a", os.urandom(1 << 20))
    with (
        s3.fault("reset", when="middle", what="GET"),
        pytest.raises((ConnectionError, http.client.IncompleteRead)),
    ):
        ask("GET", "a")
    assert len(ask("GET", "a")[2]) == 1 << 20


def test_slow_answers_hold_up_nobody_else(ask: Plain, s3: S3Server) -> None:
    ask("PUT", "a", b"x")
    done: list[str] = []
    with s3.fault("slow", seconds=1, key="slow"):
        waiting = threading.Thread(target=lambda: done.append(str(ask("PUT", "slow", b"x")[0])))
        waiting.start()
        assert ask("GET", "a")[0] == 200
        done.append("quick")
        waiting.join()
    assert done == ["quick", "200"]


def test_a_server_without_conditions_overwrites(ask: Plain, s3: S3Server) -> None:
    ask("PUT", "a", b"one")
    with s3.fault("ignore-conditions"):
        assert ask("PUT", "a", b"two", If_None_Match="*")[0] == 200
    assert ask("GET", "a")[2] == b"two"
    with s3.fault(status=501, conditional=True):
        assert ask("PUT", "a", b"three", If_None_Match="*")[0] == 501
        assert ask("PUT", "a", b"three")[0] == 200


def test_the_server_ends_with_who_began_it() -> None:
    began = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.s3_server import S3Server\n"
        "print(S3Server().port, flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", began, str(TESTS)]
    port = int(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    deadline = time.monotonic() + 20
    while listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0

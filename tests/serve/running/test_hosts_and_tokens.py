"""Who may ask: names of the server in Host, pages of other origins, and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.explored_stores import Explored
from support.served import Answer, Served, serving

PATHS = ("/", "/api/stores", "/zarr/run.zarr/zarr.json", "/main.js")
ASKED = "/zarr/run.zarr/zarr.json"


def with_host(server: Served, path: str, *lines: bytes, version: bytes = b"1.1") -> bytes:
    head = b"GET " + path.encode() + b" HTTP/" + version + b"\r\n"
    return server.raw(
        head + b"".join(line + b"\r\n" for line in (*lines, b"Connection: close")) + b"\r\n"
    )


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_its_own_names_are_answered(service: Served, name: str) -> None:
    for host in (name, f"{name}:{service.port}"):
        assert service.ask(ASKED, headers={"Host": host}).status == 200, host


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test@127.0.0.1",
        "127.0.0.1@evil.test", "127.0.0.1, evil.test", "evil.test:8765", "0x7f.1",
        "localhost:x.evil.test",
    ],
)  # fmt: skip
def test_a_name_that_was_rebound_reads_nothing(service: Served, path: str, host: str) -> None:
    answer = service.ask(path, headers={"Host": host})
    assert 400 <= answer.status < 500, (host, answer.status)
    assert b"run.zarr" not in answer.body
    assert b"<script" not in answer.body


def test_no_host_empty_hosts_and_two_hosts_are_refused(service: Served) -> None:
    own = f"Host: 127.0.0.1:{service.port}".encode()
    for lines in ((), (b"Host:",), (own, b"Host: evil.test"), (b"Host: evil.test", own)):
        answer = with_host(service, "/api/stores", *lines)
        assert answer.startswith(b"HTTP/1.1 4"), (lines, answer[:100])
        assert b"run.zarr" not in answer, lines
    assert b"run.zarr" not in with_host(service, "/api/stores", version=b"1.0")


def test_forwarded_names_do_not_count(service: Served) -> None:
    given = {"Host": "evil.test", "X-Forwarded-Host": "127.0.0.1", "Forwarded": "host=127.0.0.1"}
    assert 400 <= service.ask(ASKED, headers=given).status < 500


def test_pages_of_other_origins_are_told_nothing(service: Served) -> None:
    for headers in ({"Origin": "https://evil.test"}, {"Origin": "null"}):
        for path in PATHS:
            answer = service.ask(path, headers=headers)
            assert "access-control-allow-origin" not in answer.headers, path
        asked = {**headers, "Access-Control-Request-Method": "GET"}
        found = service.ask(ASKED, method="OPTIONS", headers=asked)
        assert "access-control-allow-origin" not in found.headers
        assert found.status < 500


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/api/nothing"])
def test_every_answer_says_what_a_page_may_do(service: Served, path: str) -> None:
    headers = service.ask(path).headers
    assert headers["x-content-type-options"] == "nosniff", path
    assert headers["referrer-policy"] in ("no-referrer", "same-origin"), path
    assert "default-src 'none'" in headers["content-security-policy"], path
    assert "frame-ancestors 'none'" in headers["content-security-policy"], path


TOKEN = "s3cret-Token_of.tests"


@pytest.fixture(scope="module")
def guarded(explored: Explored) -> Iterator[Served]:
    with serving(explored.run, options=("--token", TOKEN)) as served:
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ["/api/stores", ASKED])
def test_without_the_token_nothing_is_read(guarded: Served, path: str) -> None:
    refused: list[Answer] = [
        guarded.ask(path),
        *(guarded.ask(path, headers=bearer(t)) for t in ("", TOKEN[:-1], TOKEN + "x", "é")),
        guarded.ask(path, headers={"Authorization": f"Basic {TOKEN}"}),
        guarded.ask(path, headers={"Authorization": TOKEN}),
        guarded.ask(path, token="wrong"),
    ]
    for answer in refused:
        assert answer.status in (401, 403), answer.status
        assert b"run.zarr" not in answer.body
        assert TOKEN.encode() not in answer.body
    assert guarded.ask(path, headers=bearer(TOKEN)).status == 200


def test_a_token_is_not_told_to_others(guarded: Served) -> None:
    assert not any("Traceback" in line for line in guarded.said)
    answer = guarded.ask("/api/stores", headers=bearer(TOKEN))
    assert TOKEN.encode() not in answer.body
    assert "public" not in answer.headers.get("cache-control", "")


def test_a_short_word_for_a_path_with_a_token_is_no_way_around(
    guarded: Served, tmp_path: Path
) -> None:
    for path in ("//api/stores", "/./api/stores", "/api/../api/stores", "/zarr/", "/API/stores"):
        answer = guarded.ask(path)
        assert b"run.zarr" not in answer.body, path

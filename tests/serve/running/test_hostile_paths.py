"""No address leaves a store, makes a server fail or stops it: requests as bytes, to the process."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.explored_stores import Explored
from support.served import Served, serving

SECRET = "outside of every store"
GROUP = "activations/mlp.fc2"
UP = ("..", "%2e%2e", ".%2e", "%252e%252e", "..%00", "%c0%ae%c0%ae", "%u002e%u002e", "....", "..;")
BETWEEN = ("/", "%2f", "%5c", "\\", "//", "/./")


@pytest.fixture(scope="module")
def linked(explored: Explored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with links out of it and within, beside a file that is nobody's business."""
    folder = tmp_path_factory.mktemp("linked")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "secret").mkdir()
    (folder / "secret" / "zarr.json").write_text(SECRET)
    store = folder / "run.zarr"
    shutil.copytree(explored.run, store)
    (store / "file").symlink_to(folder / "secret.txt")
    (store / "folder").symlink_to(folder / "secret")
    (store / GROUP / "folder").symlink_to(folder / "secret")
    (store / GROUP / "file.txt").symlink_to(folder / "secret.txt")
    (store / GROUP / "c").symlink_to("/etc")
    return store


@pytest.fixture(scope="module")
def server(linked: Path) -> Iterator[Served]:
    with serving(linked) as served:
        yield served


def status_of(raw: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3})", raw)
    assert found, raw[:200]
    return int(found[1])


def asked(server: Served, target: bytes, method: bytes = b"GET") -> bytes:
    host = f"127.0.0.1:{server.port}".encode()
    return server.raw(
        method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    )


def climbing() -> Iterator[str]:
    for prefix in ("/zarr/run.zarr/", f"/zarr/run.zarr/{GROUP}/", "/zarr/", "/api/stores/", "/"):
        depth = prefix.count("/") + 1
        for up in UP:
            for between in BETWEEN:
                yield prefix + (up + between) * depth + "secret.txt"
                yield prefix + up + between + "secret.txt"
    yield from (
        "/zarr/run.zarr//etc/passwd",
        "/zarr//etc/passwd",
        "//etc/passwd",
        "/zarr/%2fetc%2fpasswd",
    )
    yield from ("/zarr/run.zarr/file", "/zarr/run.zarr/folder/zarr.json", "/zarr/run.zarr/folder")
    yield from (
        f"/zarr/run.zarr/{GROUP}/{name}" for name in ("file.txt", "folder/zarr.json", "c/passwd")
    )


def test_no_address_and_no_link_leaves_a_store(server: Served) -> None:
    targets = list(climbing())
    assert len(targets) > 400
    for target in targets:
        answer = asked(server, target.encode())
        assert 300 <= status_of(answer) < 500, (target, answer[:300])
        assert SECRET.encode() not in answer, target
        assert b"root:" not in answer, target
    assert server.ask("/zarr/run.zarr/zarr.json").status == 200


AWKWARD = (
    b"/zarr/run.zarr/\x00", b"/zarr/run.zarr/%00", b"/zarr/run.zarr/zarr.json%00.txt",
    b"/zarr/run.zarr/\xff\xfe", b"/zarr/run.zarr/%ff%fe", b"/zarr/run.zarr/%",
    b"/zarr/run.zarr/%zz",
    b"/zarr/run.zarr/" + b"a" * 300, b"/zarr/run.zarr/" + b"a/" * 3000,
    b"/zarr/run.zarr/" + b"%41" * 20_000, b"/" + b"x" * 1_000_000,
    b"/api/stores/" + b"%F0%9F%98%80" * 50, b"/api/stores/run.zarr/map?" + b"a=b&" * 30_000,
    b"/api/stores/run.zarr/map?quantity=%00", b"/api/stores/run.zarr/map?quantity=%ff",
    b"/api/stores/run.zarr/map?quantity=" + b"9" * 100_000,
    b"/api/stores/run.zarr/map?quantity=absmax&quantity=absmax", b"/api/stores//map",
    b"/api/stores/%0d%0aSet-Cookie:x/map", b"/zarr/run.zarr/%0d%0aSet-Cookie:%20x=1",
    b"*", b"http://127.0.0.1/zarr/run.zarr/zarr.json", b"/zarr/run.zarr/zarr.json#x", b"", b"?",
    *(f"/zarr/run.zarr/{GROUP}/max/c{place}".encode()
      for place in ("/-1/0/0", "/1e9/0/0", f"/{'9' * 400}/0", "", "/", "/0/0/0/0/0/0")),
)  # fmt: skip


@pytest.mark.parametrize("target", AWKWARD, ids=range(len(AWKWARD)))
def test_an_awkward_address_is_refused_and_the_server_goes_on(
    server: Served, target: bytes
) -> None:
    answer = asked(server, target)
    assert status_of(answer) < 500, answer[:300]
    assert b"\r\nset-cookie" not in answer.lower()
    assert b"Traceback" not in answer
    assert server.ask("/zarr/run.zarr/zarr.json").status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n",
        b"\r\n" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_request_is_refused(server: Served, raw: bytes) -> None:
    answer = server.raw(raw, whole=False)
    assert not answer or 400 <= status_of(answer) < 500, answer[:300]
    assert server.ask("/zarr/run.zarr/zarr.json").status == 200


@pytest.mark.parametrize("path", ["/", "/zarr/run.zarr/zarr.json", "/api/stores"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "MKCOL"])
def test_only_reading_is_possible(server: Served, linked: Path, path: str, method: str) -> None:
    before = (linked / "zarr.json").read_bytes()
    answer = server.ask(path, method=method, body=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status in (400, 405), (answer.status, answer.body[:200])
    assert (linked / "zarr.json").read_bytes() == before


def test_a_body_that_is_sent_with_a_question_is_not_waited_for(server: Served) -> None:
    host = f"127.0.0.1:{server.port}".encode()
    with server.connect() as connection:
        head = (
            b"GET /api/stores HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 1000000000\r\n\r\n"
        )
        connection.sendall(head)
        assert status_of(connection.recv(200)) < 500

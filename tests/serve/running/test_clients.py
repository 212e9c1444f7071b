"""No client harms another: those that send slowly, read slowly, come in hundreds or go away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from support.explored_stores import Explored
from support.served import Served, received, serving

ASKED = "/zarr/run.zarr/zarr.json"
CLIENTS = 200


@pytest.fixture(scope="module")
def server(explored: Explored) -> Iterator[Served]:
    with serving(explored.run) as served:
        yield served


def head(server: Served, path: str, *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *more, "", ""]
    return "\r\n".join(lines).encode()


def test_half_a_request_holds_nobody_up(server: Served) -> None:
    with ExitStack() as stack:
        for number in range(CLIENTS):
            connection = stack.enter_context(server.connect())
            connection.sendall(head(server, ASKED)[: 5 + number % 60])
        for _ in range(5):
            assert server.ask(ASKED).status == 200
            assert server.ask("/api/stores").status == 200


def test_one_who_does_not_read_holds_nobody_up(server: Served) -> None:
    """Answers asked for again and again on one connection, and none taken."""
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(server.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.settimeout(0.5)
            with suppress(TimeoutError):
                connection.sendall(head(server, "/main.js") * 400)
        assert server.ask(ASKED).status == 200
        assert server.ask("/api/stores").status == 200


def test_two_hundred_at_once_are_each_answered_or_told_to_come_again(server: Served) -> None:
    paths = (ASKED, "/api/stores", "/", "/api/stores/run.zarr/map?quantity=absmax")
    wanted = [server.ask(path).body for path in paths]
    ready = threading.Barrier(CLIENTS)

    def ask(number: int) -> tuple[int, int, bytes]:
        ready.wait(60)
        answer = server.ask(paths[number % len(paths)])
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) > 0
        return number, answer.status, answer.body

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(ask, range(CLIENTS)))
    assert {status for _, status, _ in found} <= {200, 503}
    served = [(number, body) for number, status, body in found if status == 200]
    assert len(served) >= CLIENTS // 4
    assert all(body == wanted[number % len(paths)] for number, body in served)
    assert all(server.ask(path).status == 200 for path in paths)


def test_a_client_that_goes_away_leaves_nothing_behind(server: Served) -> None:
    for path in (ASKED, "/api/stores/run.zarr/map?quantity=absmax", "/main.js") * 20:
        with server.connect() as connection:
            # Reset at once: whoever answers finds nobody.
            linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(head(server, path))
    assert server.ask(ASKED).status == 200
    assert server.process.poll() is None
    assert not [line for line in server.said if "Traceback" in line]


def test_several_requests_on_one_connection_are_answered_in_turn(server: Served) -> None:
    with server.connect() as connection:
        connection.sendall(head(server, ASKED) * 3 + head(server, ASKED, "Connection: close"))
        answers = received(connection)
    assert answers.count(b"HTTP/1.1 200") == 4

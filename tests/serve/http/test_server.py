"""A slow client harms nobody: it is given up, and makes room for others."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr

from support.running import Running, running
from taqstore.serve.http import server as module
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
LARGE = "large/c/0"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a file that no buffer of a network holds."""
    folder = Path(make_store(tmp_path_factory.mktemp("slow") / "run.zarr", shape=SHAPE))
    size = 64 << 20
    large = zarr.create_array(
        folder / "large", shape=(size,), chunks=(size,), dtype="u1", compressors=None
    )
    large[:] = np.random.default_rng(1).integers(0, 256, size, "u1")
    return folder


@pytest.fixture
def served(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in ("_ASKING", "_TAKING", "_CLOSING"):
        monkeypatch.setattr(module, name, 0.5)
    monkeypatch.setattr(module, "_STALLED", 0.0)
    with running(store) as found:
        yield found


def connected(served: Running, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", served.port), timeout=30)
    client.sendall(sent)
    return client


def asking(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def is_ended(client: socket.socket) -> bool:
    """Whether the server has gone, what it sent before taken."""
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionError:
        return True
    return True


def trickles(client: socket.socket) -> bool:
    """Send a byte now and then until nobody listens any more."""
    for _ in range(300):
        try:
            client.sendall(b"x")
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", b"GET /"])
def test_who_does_not_finish_its_question_is_given_up(served: Running, sent: bytes) -> None:
    with connected(served, sent) as client:
        assert is_ended(client)


def test_who_asks_a_byte_at_a_time_is_given_up(served: Running) -> None:
    with connected(served, b"GET /") as client:
        assert trickles(client)


def test_who_asks_again_a_byte_at_a_time_is_given_up(served: Running) -> None:
    with connected(served, asking("/zarr/run.zarr/zarr.json")) as client:
        assert client.recv(16)
        assert trickles(client)


def test_who_does_not_read_is_given_up_and_others_are_answered(served: Running) -> None:
    clients = [connected(served, asking(f"/zarr/run.zarr/{LARGE}")) for _ in range(20)]
    assert served.get("/zarr/run.zarr/zarr.json").status == 200
    for client in clients:
        with client:
            time.sleep(0.05)
    with connected(served, asking(f"/zarr/run.zarr/{LARGE}")) as client:
        time.sleep(2)  # two looks of the server
        left = 0
        try:
            while piece := client.recv(1 << 20):
                left += len(piece)
        except ConnectionError:
            pass
        assert left < 64 << 20


def test_idle_connections_make_room(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "most_connections", lambda: 4)
    for name in ("_ASKING", "_TAKING", "_CLOSING"):
        monkeypatch.setattr(module, name, 60.0)
    idle = [connected(served, b"GET /") for _ in range(12)]
    try:
        assert served.get("/zarr/run.zarr/zarr.json").status == 200
        assert is_ended(idle[0])
    finally:
        for client in idle:
            client.close()


def test_who_takes_nothing_makes_room(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "most_connections", lambda: 4)
    for name in ("_ASKING", "_TAKING", "_CLOSING"):
        monkeypatch.setattr(module, name, 60.0)
    slow = [connected(served, asking(f"/zarr/run.zarr/{LARGE}")) for _ in range(4)]
    try:
        assert all(client.recv(16) for client in slow)  # their answers have begun
        for _ in range(100):  # until what the network holds is full
            with suppress(ConnectionError, http.client.HTTPException):
                assert served.get("/zarr/run.zarr/zarr.json").status == 200
                return
            time.sleep(0.1)
        raise AssertionError("nobody made room")
    finally:
        for client in slow:
            client.close()

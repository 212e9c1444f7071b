"""Large answers go out in pieces, and no more of them wait than are allowed."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from taqstore.serve.http.paced import Paced

LARGE = bytes(range(256)) * (8 << 10)  # 2 MiB


def scope(method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": "/", "headers": []}


async def receive() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def sent(app: ASGIApp, method: str = "GET") -> list[Any]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope(method), receive, send)
    return messages


def test_a_large_answer_is_the_same_in_small_pieces() -> None:
    head, *pieces = asyncio.run(sent(Paced(Response(LARGE))))
    assert head["status"] == 200
    assert b"".join(piece["body"] for piece in pieces) == LARGE
    assert max(len(piece["body"]) for piece in pieces) <= 64 << 10
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [
        False
    ]


def test_small_streamed_and_empty_answers_are_whole() -> None:
    async def parts() -> Any:
        for part in (b"a", b"", b"b" * 100_000):
            yield part

    for app, expected in (
        (Response(b"x"), b"x"),
        (Response(status_code=204), b""),
        (StreamingResponse(parts()), b"a" + b"b" * 100_000),
    ):
        _, *pieces = asyncio.run(sent(Paced(app)))
        assert b"".join(piece["body"] for piece in pieces) == expected
        assert not pieces[-1].get("more_body", False)


def test_what_waits_for_clients_that_do_not_read_is_bounded() -> None:
    async def ask() -> list[int]:
        app, statuses, go_on = (
            Paced(Response(LARGE), most=3 * len(LARGE)),
            list[int](),
            asyncio.Event(),
        )

        async def slow(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await go_on.wait()

        reading = [asyncio.create_task(app(scope(), receive, slow)) for _ in range(3)]
        await asyncio.sleep(0.05)
        head, body = (await sent(app))[:2]
        assert (head["status"], b"ask again" in body["body"]) == (503, True)
        assert dict(head["headers"])[b"retry-after"] == b"5"
        assert (await sent(Paced(Response(b"small"))))[0]["status"] == 200
        go_on.set()
        await asyncio.gather(*reading)
        return [*statuses, (await sent(app))[0]["status"]]

    assert asyncio.run(ask()) == [200, 200, 200, 200]


def test_room_is_given_back_where_sending_fails() -> None:
    async def ask() -> int:
        app = Paced(Response(LARGE), most=len(LARGE))

        async def broken(message: Any) -> None:
            if message["type"] == "http.response.body":
                raise ConnectionError

        for _ in range(3):
            try:
                await app(scope(), receive, broken)
            except ConnectionError:
                continue
        status: int = (await sent(app))[0]["status"]
        return status

    assert asyncio.run(ask()) == 200

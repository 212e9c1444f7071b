"""Answers handed to the network in small pieces, and a bound on those that wait there."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taqstore.serve.http.content import send_in_pieces
from taqstore.serve.http.problems import refusal

_LARGE = 1 << 20
MOST_WAITING = 256 << 20
"""Bytes of large answers that are being sent, of all clients together."""


class Paced:
    """Sends whole answers in pieces: the next one goes when the network has taken the last.

    A server would take an answer of any size at once and hold it for a client that does not read.
    """

    def __init__(self, app: ASGIApp, *, most: int = MOST_WAITING) -> None:
        self.app, self._most, self._waiting = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application; 503 where too much waits to be sent."""
        begun: list[Message] = []
        refused = False

        async def paced(message: Message) -> None:
            nonlocal refused
            if refused:
                return
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body = message.get("body", b"")
            size = len(body) if len(body) >= _LARGE else 0
            if begun and self._waiting + size > self._most:
                refused = True
                busy = refusal("too much is being sent; ask again", 503, {"Retry-After": "5"})
                await busy(scope, receive, send)
                return
            self._waiting += size
            try:
                while begun:
                    await send(begun.pop())
                if scope["method"] == "HEAD" or not body:
                    await send(message)
                else:
                    await send_in_pieces(send, body, more=message.get("more_body", False))
            finally:
                self._waiting -= size

        await self.app(scope, receive, paced)

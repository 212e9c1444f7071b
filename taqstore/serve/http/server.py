"""uvicorn, and what it lacks: patience with clients that has an end, and room for the next one.

It has no limit on how long a client may take to send its question or to read its answer, and counts
idle connections among those that keep others out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from taqstore.serve.http.content import KNOWN_KEY

MOST_CONNECTIONS = 1000
_FILES_BESIDES = 128
_KEEP_ALIVE = 30
_GRACE, _CANCELLED = 1, 2
"""Seconds at the end: for answers that are being sent, and for those that are worked on."""
_ASKING, _TAKING, _CLOSING = 10.0, 30.0, 30.0
"""Seconds: for a question to arrive, for a piece of an answer to be taken, for the last one."""
_STALLED = 1.0
"""Seconds after which an answer that is not taken makes room where there is none."""
_LONGEST_QUESTION = 32 << 10


class Connection(H11Protocol):
    """A connection of which it is known how long it has kept us waiting."""

    def __init__(self, *args: Any, **particulars: Any) -> None:
        super().__init__(*args, **particulars)
        self.app_state = {**self.app_state, KNOWN_KEY: self._is_gone}
        self._asked_since: float | None = self.loop.time()
        self._stalled_since: float | None = None
        self._closing_since: float | None = None
        self.idle_since = self.loop.time()

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _is_gone(self) -> bool:
        return self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there; where there are too many, one makes room."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            _victim(self).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Some of a question."""
        if not self.busy and self._asked_since is None:
            self._asked_since = self.loop.time()
        super().data_received(data)
        if self.busy:
            self._asked_since = None

    def on_response_complete(self) -> None:
        """All of an answer has been handed on."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client takes less than it is given."""
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._stalled_since = None
        super().resume_writing()

    def stalled(self, now: float) -> float:
        """Seconds for which an answer has not been taken."""
        return 0.0 if self._stalled_since is None else now - self._stalled_since

    def look(self, now: float) -> None:
        """End the connection if it has kept us waiting for too long."""
        if self.transport.is_closing() and self._closing_since is None:
            self._closing_since = now
        asked = None if self.busy else self._asked_since
        limits = (asked, _ASKING), (self._stalled_since, _TAKING), (self._closing_since, _CLOSING)
        if any(since is not None and now - since > most for since, most in limits):
            self.transport.abort()


def most_connections() -> int:
    """So many that files can still be opened."""
    try:
        import resource
    except ImportError:  # no such limit there
        return MOST_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    # A connection may have a file open that it is sent from.
    return max(16, min(MOST_CONNECTIONS, (files - _FILES_BESIDES) // 2))


def _victim(newest: Connection) -> Connection:
    """Who is idle for longest, else who takes its answer slowest, else the one that came last."""
    others: list[Any] = [one for one in newest.connections if one is not newest]
    idle = [one for one in others if not one.busy]
    if idle:
        return min(idle, key=lambda one: one.idle_since)  # type: ignore[no-any-return]
    now = newest.loop.time()
    slow = max(others, key=lambda one: one.stalled(now), default=newest)
    return slow if slow.stalled(now) > _STALLED else newest


class Server(uvicorn.Server):
    """Serves an application on a socket that listens.

    Parameters
    ----------
    app
        The application.
    ready
        Called when it answers.
    """

    def __init__(self, app: ASGIApp, *, ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                _quiet(app),
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_CANCELLED,
                h11_max_incomplete_event_size=_LONGEST_QUESTION,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; once a second connections are looked at."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.look(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, whoever is still reading."""
        asyncio.get_running_loop().call_later(_GRACE, self._abort)
        await super().shutdown(sockets)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _quiet(app: ASGIApp) -> ASGIApp:
    """An application of which nobody hears that it was stopped."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return quiet

"""What was asked and what became of it, for who listens."""

from __future__ import annotations

import logging
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)


class Told:
    """Logs every request when it is answered; stands behind whatever takes secrets off it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application."""
        if not _log.isEnabledFor(logging.DEBUG):
            await self.app(scope, receive, send)
            return
        began, status = monotonic(), 500

        async def told(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            query = scope["query_string"].decode("latin-1")
            address = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
            took = 1000 * (monotonic() - began)
            _log.debug("%s %s: %d, %.0f ms", scope["method"], address, status, took)

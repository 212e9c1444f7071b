"""A part of an application that is made while the rest of it answers already."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from starlette.types import ASGIApp, Receive, Scope, Send

from taqstore.serve.http.work import awaited


class Later:
    """An application that a thread makes; who asks it before waits.

    Parameters
    ----------
    make
        Makes it.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._made: Future[ASGIApp] = Future()
        threading.Thread(target=self._make, args=(make,), name="later", daemon=True).start()

    def _make(self, make: Callable[[], ASGIApp]) -> None:
        try:
            self._made.set_result(make())
        except BaseException as error:  # told to everyone who asks
            self._made.set_exception(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application."""
        app = await awaited(self._made)
        await app(scope, receive, send)

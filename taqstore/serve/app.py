"""The application: routes made from the table of endpoints, the Zarr tree, and the page."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taqstore.serve.api.routes import routes
from taqstore.serve.http.problems import http_refused, refusal
from taqstore.serve.http.work import BusyError, TooLongError, Work
from taqstore.serve.served.service import Service
from taqstore.serve.zarr_tree import ZarrTree

PAGE = Path(__file__).with_name("page")
# A few computations at once, so that a long one does not keep short ones waiting; more would only
# share the cores. Files are read beside them, also where each read takes its time.
_COMPUTING, _WAITING = 4, 32
_READING, _READ_WAITING = 8, 4096
SECONDS = 60.0
"""How long an answer is waited for."""


def application(service: Service, *, seconds: float = SECONDS) -> Starlette:
    """The service as ASGI."""
    computing = Work(threads=_COMPUTING, waiting=_WAITING, seconds=seconds)
    reading = Work(threads=_READING, waiting=_READ_WAITING, seconds=seconds)
    every = [
        *routes(service, computing),
        Route("/zarr/{key:path}", ZarrTree(service, reading).answer),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    handlers = {HTTPException: http_refused, BusyError: _busy, TooLongError: _too_long}
    return Starlette(routes=every, exception_handlers=handlers)


def _busy(request: Request, error: Exception) -> Response:
    return refusal("too much is asked for at once; ask again", 503, {"Retry-After": "1"})


def _too_long(request: Request, error: Exception) -> Response:
    text = "this takes long and is still worked on; ask again for the answer"
    return refusal(text, 504, {"Retry-After": "10"})

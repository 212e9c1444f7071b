"""The application: routes made from the table of endpoints, the Zarr tree, and the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from taqstore.serve.http.endpoint import API
from taqstore.serve.http.guard import METHODS, Gate, Headed
from taqstore.serve.http.later import Later
from taqstore.serve.http.paced import Paced
from taqstore.serve.http.problems import http_refused, refusal
from taqstore.serve.http.secret import Token
from taqstore.serve.http.told import Told
from taqstore.serve.http.work import BusyError, TooLongError, Work
from taqstore.serve.served.service import Service
from taqstore.serve.zarr_tree import ZARR, ZarrTree

PAGE = Path(__file__).with_name("page")
# A few computations at once, so that a long one does not keep short ones waiting; more would only
# share the cores. Files are read beside them, also where each read takes its time.
_COMPUTING, _WAITING = 4, 32
_READING, _READ_WAITING = 8, 4096
SECONDS = 60.0
"""How long an answer is waited for."""
LOCAL = ("localhost", "127.0.0.1", "::1")
"""What this machine is called by itself."""
# Chunks are compressed where that pays, tables of Parquet and Arrow too.
_AS_THEY_ARE = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    "application/octet-stream",
    "application/vnd.apache.parquet",
    "application/vnd.apache.arrow.file",
)
_COMPRESSION = 5
_ASKED_WITH = ("Authorization", "Range", "If-None-Match", "If-Range")
_SHOWN = (
    "ETag",
    "Content-Range",
    "Accept-Ranges",
    "Content-Length",
    "Taqstore-Cli",
    "Taqstore-Note",
)


@dataclass(frozen=True)
class Rules:
    """Who may ask.

    Parameters
    ----------
    hosts
        Names that the service is called by.
    any_address
        Whether it may be called by any number of IP besides.
    token
        What a client has to know; empty: nothing.
    origins
        Pages that may read answers, besides its own: ``https://host:port``, or ``*`` for all.
    seconds
        How long an answer is waited for.
    """

    hosts: Collection[str] = LOCAL
    any_address: bool = False
    token: str = ""
    origins: Collection[str] = ()
    seconds: float = SECONDS


def application(service: Service, rules: Rules | None = None) -> ASGIApp:
    """The service as ASGI; by default for this machine alone."""
    rules = rules or Rules()
    app: ASGIApp = Told(_parts(service, rules))
    app = GZipMiddleware(app, compresslevel=_COMPRESSION, exclude_content_types=_AS_THEY_ARE)
    if rules.token:
        app = Token(app, token=rules.token, data=(f"{API}/", f"{ZARR}/"))
    if rules.origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(rules.origins),
            allow_methods=METHODS,
            allow_headers=_ASKED_WITH,
            expose_headers=_SHOWN,
        )
    app = Gate(app, hosts=rules.hosts, any_address=rules.any_address)
    return Paced(Headed(app, shared=bool(rules.origins), private=bool(rules.token)))


def _parts(service: Service, rules: Rules) -> ASGIApp:
    computing = Work(threads=_COMPUTING, waiting=_WAITING, seconds=rules.seconds)
    reading = Work(threads=_READING, waiting=_READ_WAITING, seconds=rules.seconds)
    # What endpoints import takes longer than all the rest: the page arrives meanwhile.
    api = Later(partial(_api, service, computing))
    others = Starlette(
        routes=[
            Route(f"{ZARR}/{{key:path}}", ZarrTree(service, reading).answer),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        exception_handlers=_REFUSED,
    )

    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        part = api if path == API or path.startswith(f"{API}/") else others
        await part(scope, receive, send)

    return parts


def _api(service: Service, work: Work) -> ASGIApp:
    from taqstore.serve.api.routes import routes

    return Starlette(routes=routes(service, work), exception_handlers=_REFUSED)


async def _busy(request: Request, error: Exception) -> Response:
    return refusal("too much is asked for at once; ask again", 503, {"Retry-After": "1"})


async def _too_long(request: Request, error: Exception) -> Response:
    text = "this takes long and is still worked on; ask again for the answer"
    return refusal(text, 504, {"Retry-After": "10"})


async def _broken(request: Request, error: Exception) -> Response:
    """A bug: its traceback is on the terminal of the service."""
    return refusal("this should not happen; the service's terminal says more", 500)


_Handler = Callable[[Request, Exception], Awaitable[Response]]
_REFUSED: Mapping[Any, _Handler] = {
    HTTPException: http_refused,
    BusyError: _busy,
    TooLongError: _too_long,
    Exception: _broken,
}

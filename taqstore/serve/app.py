"""The application: routes made from the table of endpoints, the Zarr tree, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from taqstore.serve.api.routes import routes
from taqstore.serve.http.problems import http_refused
from taqstore.serve.served.service import Service

PAGE = Path(__file__).with_name("page")


def application(addresses: Sequence[str]) -> Starlette:
    """The service over some stores, as ASGI."""
    service = Service(addresses)
    every = [
        *routes(service),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return Starlette(routes=every, exception_handlers={HTTPException: http_refused})

"""The application: routes made from the table of endpoints, the Zarr tree, and the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taqstore.analysis.shared.option import bundled, settle
from taqstore.errors import MissingError, TaqError
from taqstore.serve.api.table import ENDPOINTS
from taqstore.serve.http.content import refusal
from taqstore.serve.http.endpoint import Endpoint
from taqstore.serve.http.work import BusyError, TooLongError, Work
from taqstore.serve.served.service import Service
from taqstore.serve.zarr_tree import ZarrTree

PAGE = Path(__file__).with_name("page")
# Two computations at once fill two cores, dask's threads besides; who waits for more than a few
# others is told to come again. Files are read beside them, also where each read takes its time.
_COMPUTING, _WAITING, _SECONDS = 2, 16, 60.0
_READING, _READ_WAITING, _READ_SECONDS = 8, 4096, 60.0


def application(service: Service) -> Starlette:
    """The service as ASGI."""
    computing = Work(threads=_COMPUTING, waiting=_WAITING, seconds=_SECONDS)
    reading = Work(threads=_READING, waiting=_READ_WAITING, seconds=_READ_SECONDS)
    routes = [
        *(Route(f"/api{e.path}", partial(_answer, service, computing, e)) for e in ENDPOINTS),
        Route("/zarr/{key:path}", ZarrTree(service, reading).answer),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    refused = {BusyError: _busy, TooLongError: _too_long}
    return Starlette(routes=routes, exception_handlers=refused)


def _busy(request: Request, error: Exception) -> Response:
    return refusal(503, "too much is asked for at once; ask again", **{"Retry-After": "1"})


def _too_long(request: Request, error: Exception) -> Response:
    text = "the answer takes long and is still worked on; ask again"
    return refusal(504, text, **{"Retry-After": "10"})


async def _answer(service: Service, work: Work, endpoint: Endpoint, request: Request) -> Response:
    given = dict(request.query_params)
    try:
        settled = settle(endpoint.options, given, who=endpoint.path)
        options: dict[str, Any] = bundled(endpoint.options, endpoint.bundles, settled)
        for option in endpoint.options:
            if option.default is not None and option.when is None:
                options.setdefault(option.name, option.default)
        ask = partial(endpoint.load(), service, **request.path_params, **endpoint.fixed, **options)
        return JSONResponse(await work.run(ask))
    except MissingError as error:
        return refusal(404, str(error))
    except TaqError as error:
        return refusal(400, str(error))

"""The application: routes made from the table of endpoints, the Zarr tree, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taqstore.analysis.shared.option import bundled, settle
from taqstore.errors import TaqError
from taqstore.serve.api.table import ENDPOINTS
from taqstore.serve.http.endpoint import Endpoint
from taqstore.serve.served.service import Service

PAGE = Path(__file__).with_name("page")


def application(addresses: Sequence[str]) -> Starlette:
    """The service over some stores, as ASGI."""
    service = Service(addresses)
    routes = [
        *(Route(f"/api{e.path}", partial(_answer, service, e)) for e in ENDPOINTS),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return Starlette(routes=routes)


async def _answer(service: Service, endpoint: Endpoint, request: Request) -> Response:
    given = dict(request.query_params)
    try:
        settled = settle(endpoint.options, given, who=endpoint.path)
        options: dict[str, Any] = bundled(endpoint.options, endpoint.bundles, settled)
        for option in endpoint.options:
            if option.default is not None and option.when is None:
                options.setdefault(option.name, option.default)
        ask = partial(endpoint.load(), service, **request.path_params, **endpoint.fixed, **options)
        return JSONResponse(await run_in_threadpool(ask))
    except TaqError as error:
        return JSONResponse({"error": str(error)}, status_code=400)

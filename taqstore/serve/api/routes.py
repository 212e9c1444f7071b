"""Addresses below `/api`, made from the table of endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from taqstore.asked import meant
from taqstore.errors import MissingError, printable, problem
from taqstore.serve.api.answering import answer
from taqstore.serve.api.table import ENDPOINTS
from taqstore.serve.http.endpoint import API, Endpoint
from taqstore.serve.http.formats import FORMS
from taqstore.serve.http.problems import refused
from taqstore.serve.http.work import Work
from taqstore.serve.served.service import Service


def routes(service: Service, work: Work) -> list[BaseRoute]:
    """All of them; what is none of them is refused by saying which was meant."""
    made: list[BaseRoute] = [route for e in ENDPOINTS for route in _routes(service, work, e)]
    return [*made, Route(f"{API}/{{rest:path}}", _unknown)]


def suffixes(endpoint: Endpoint) -> tuple[str, ...]:
    """Words that may stand behind a dot at the end of an endpoint's address."""
    return tuple(form.word for form in FORMS) if endpoint.answers == "tables" else ()


def _routes(service: Service, work: Work, endpoint: Endpoint) -> Iterator[Route]:
    for word in suffixes(endpoint):  # before the address without: a group may have dots
        asked = partial(answer, service, work, endpoint, suffix=word)
        yield Route(f"{API}{endpoint.path}.{word}", asked)
    yield Route(f"{API}{endpoint.path}", partial(answer, service, work, endpoint))
    if not endpoint.path:
        yield Route(f"{API}/", partial(answer, service, work, endpoint))


async def _unknown(request: Request) -> Response:
    known = [f"{API}{endpoint.path}" for endpoint in ENDPOINTS]
    what = f"no endpoint {printable(request.url.path, longest=200)}"
    return refused(MissingError(problem(what, remedy=meant(request.url.path, known))))

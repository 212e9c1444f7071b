"""The service about itself: what is served, what may be asked, and how."""

from __future__ import annotations

from typing import Any

from taqstore.errors import TaqError
from taqstore.serve.http.endpoint import API, Endpoint, File
from taqstore.serve.served.service import Service
from taqstore.version import __version__


def endpoints() -> list[Endpoint]:
    """Index, stores, the OpenAPI document and its page."""
    here = f"{__name__}:"
    return [
        Endpoint("", "What is served, and what may be asked.", f"{here}index"),
        Endpoint("/stores", "The stores that are served.", f"{here}stores"),
        Endpoint("/openapi.json", "All of this as OpenAPI 3.1.", f"{here}openapi"),
        Endpoint("/docs", "All of this as a page.", f"{here}docs", "file"),
        Endpoint("/docs.css", "The style of that page.", f"{here}style", "file"),
    ]


def index(service: Service) -> dict[str, Any]:
    """Where to go on."""
    from taqstore.serve.api.table import ENDPOINTS

    return {
        "taqstore": __version__,
        "docs": f"{API}/docs",
        "openapi": f"{API}/openapi.json",
        "stores": list(service.names),
        "endpoints": [
            {"path": f"{API}{one.path}", "doc": one.doc, "answers": one.answers}
            for one in ENDPOINTS
        ],
    }


def stores(service: Service) -> dict[str, Any]:
    """Name, address, version and number of groups of each store; or why it cannot be read now."""
    return {"stores": [_described(service, name) for name in service.names]}


def _described(service: Service, name: str) -> dict[str, Any]:
    about = {"name": name, "address": service.address(name)}
    try:
        store = service.store(name)
        return {**about, "version": service.version(name), "format": store.root.format,
                "groups": list(store.paths)}  # fmt: skip
    except TaqError as error:
        return {**about, "error": str(error)}


def openapi(service: Service) -> dict[str, Any]:
    """The document."""
    from taqstore.serve.api.openapi import document

    return document(service.names)


def docs(service: Service) -> File:
    """The page."""
    from taqstore.serve.api.page import page

    return File(page(service.names).encode(), "text/html; charset=utf-8")


def style(service: Service) -> File:
    """What the page looks like."""
    from taqstore.serve.api.page import STYLE

    return File(STYLE.read_bytes(), "text/css; charset=utf-8")

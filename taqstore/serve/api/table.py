"""The endpoints below `/api`: `ENDPOINTS` is the only list of them."""

from __future__ import annotations

from taqstore.analysis.shared.option import Option
from taqstore.serve.http.endpoint import Endpoint

_VIEWS = "taqstore.serve.views"

VIEWS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/map",
        "One number of every step and linear.",
        f"{_VIEWS}.map:quantity_map",
        options=(Option("quantity", "Which number.", str, "absmax", choices=("absmax",)),),
    ),
)

ENDPOINTS: tuple[Endpoint, ...] = (*VIEWS,)

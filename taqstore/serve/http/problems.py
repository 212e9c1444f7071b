"""What could not be answered: the one-liners of the library, with a status of HTTP."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from taqstore.errors import (
    LayoutError,
    MissingError,
    MisuseError,
    StoreError,
    SupersededError,
    TaqError,
    printable,
)


class TooLargeError(TaqError):
    """An answer would be larger than any that is given."""


class NotAcceptableError(TaqError):
    """None of the formats that a client takes can be given."""


_STATUS: tuple[tuple[type[TaqError], HTTPStatus], ...] = (
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (NotAcceptableError, HTTPStatus.NOT_ACCEPTABLE),
    (MisuseError, HTTPStatus.BAD_REQUEST),
    (MissingError, HTTPStatus.NOT_FOUND),
    (LayoutError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (SupersededError, HTTPStatus.CONFLICT),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def status_of(error: TaqError) -> HTTPStatus:
    """What an error is in HTTP; of a kind without a status of its own, that data do not fit."""
    found = (status for kind, status in _STATUS if isinstance(error, kind))
    return next(found, HTTPStatus.UNPROCESSABLE_ENTITY)


def refusal(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """``{"error": text}``."""
    return JSONResponse({"error": printable(text)}, status, headers)


def refused(error: TaqError) -> Response:
    """An error as an answer."""
    status = status_of(error)
    again = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return refusal(str(error), status, {"Cache-Control": "no-store", **again})


async def http_refused(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, such as an address or a method that there is not."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return refusal(f"{request.url.path}: {error.detail}", error.status_code, headers)

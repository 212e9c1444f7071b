"""A secret that a client has to know: sent as a bearer, or once in an address, then as a cookie."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from urllib.parse import unquote_plus

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taqstore.serve.http.problems import refusal

SHORTEST = 8
_NAME = "token"
_PAGE = (
    "<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>taqstore</title><p>{}</p></html>"
)
_ASKED = "This service is for those who have its address with the token in it."


def make_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


class Token:
    """Lets through who knows the token. It is cut off the address before anyone else sees it.

    Parameters
    ----------
    token
        The secret. It is compared in a time that tells nothing of it.
    data
        What addresses of data begin with. There a token in the address is enough for one answer; on
        pages it is exchanged for a cookie, so that it does not stay in the address.
    """

    def __init__(self, app: ASGIApp, *, token: str, data: tuple[str, ...] = ()) -> None:
        self.app, self._data = app, data
        self._token = _digest(token.encode())
        # Cookies are shared by all ports of a machine: each service has its own name.
        self._cookie = f"taqstore-{_digest(b'name', self._token)[:12]}"
        self._value = _digest(b"cookie", self._token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application, or that a token is missing."""
        given, rest = _cut(scope["query_string"])
        inner = {**scope, "query_string": rest}
        headers = Headers(scope=scope)
        if given is not None and self._is_token(given):
            is_data = scope["path"].startswith(self._data)
            answer: ASGIApp = self.app if is_data else self._entered(inner, headers)
            await answer(inner, receive, send)
        elif self._knows(headers):
            await self.app(inner, receive, send)
        else:
            await self._refused(headers)(inner, receive, send)

    def _is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(_digest(given), self._token)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip().encode()):
            return True
        try:
            held = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return held is not None and hmac.compare_digest(held.value.encode(), self._value.encode())

    def _entered(self, scope: Scope, headers: Headers) -> Response:
        """The same page without the token in its address, and the cookie for it."""
        # One slash: two would name another host.
        where = "/" + scope["raw_path"].decode("ascii").lstrip("/\\")
        if scope["query_string"]:
            where += "?" + scope["query_string"].decode("latin-1")
        where = where.encode("ascii", "replace").decode()
        if headers.get("sec-fetch-site") == "cross-site":
            # A browser that follows a link of another site keeps the cookie back until it is here.
            answer: Response = HTMLResponse(
                _PAGE.format("One moment."), headers={"Refresh": f"0; url={where}"}
            )
        else:
            answer = RedirectResponse(where, 303)
        answer.set_cookie(self._cookie, self._value, httponly=True, samesite="strict", path="/")
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _refused(self, headers: Headers) -> Response:
        more = {"WWW-Authenticate": 'Bearer realm="taqstore"', "Cache-Control": "no-store"}
        if "text/html" in headers.get("accept", ""):
            return HTMLResponse(_PAGE.format(_ASKED), 401, more)
        text = "this service wants its token; send it as Authorization: Bearer TOKEN"
        return refusal(text, 401, more)


def _digest(*parts: bytes | str) -> str:
    made = sha256()
    for part in parts:
        made.update(part.encode() if isinstance(part, str) else part)
    return made.hexdigest()


def _cut(query: bytes) -> tuple[bytes | None, bytes]:
    """The last token of a query string, and the rest of it."""
    token, rest = None, []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == _NAME.encode():
            token = unquote_plus(value.decode("latin-1"), errors="replace").encode()
        else:
            rest.append(pair)
    return token, b"&".join(rest)

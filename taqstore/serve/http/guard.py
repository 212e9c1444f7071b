"""Who may ask, and what: addresses, methods, lengths, and the headers that every answer carries."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taqstore.serve.http.problems import refusal

METHODS = ("GET", "HEAD", "OPTIONS")
_LONGEST_ADDRESS, _MOST_HEADERS, _LONGEST_HEADERS = 8 << 10, 64, 16 << 10
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Headed:
    """Gives every answer the headers that keep a browser from doing what nobody meant.

    Parameters
    ----------
    shared
        Whether pages of other origins may read answers.
    private
        Whether only the client itself may keep an answer, no proxy.
    """

    def __init__(self, app: ASGIApp, *, shared: bool = False, private: bool = False) -> None:
        self.app, self._private = app, private
        other = {"Cross-Origin-Resource-Policy": "cross-origin"} if shared else {}
        self._headers = {**_HEADERS, **other}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application, with headers that it has not set itself."""

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if self._private and "no-store" not in headers["Cache-Control"]:
                    headers["Cache-Control"] = f"private, {headers['Cache-Control']}"
            await send(message)

        await self.app(scope, receive, headed)


class Gate:
    """Refuses what no client of ours sends: other hosts, other methods, what is too long.

    Parameters
    ----------
    hosts
        Names that the service is called by. A page elsewhere can make its own name lead to this
        machine (DNS rebinding); the name then stands in `Host`.
    any_address
        Whether it may be called by any number: no name leads there.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], any_address: bool = False) -> None:
        self.app, self._any_address = app, any_address
        self._hosts = frozenset(map(_plain, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application, or why there is none."""
        refused = self._refusal(scope, Headers(scope=scope))
        await (refused or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if not self._is_ours(headers.getlist("host")):
            text = "this service is not called so; taqstore serve --allow-host NAME lets it be"
            return refusal(text, 403, _CLOSE)
        if scope["method"] not in METHODS:
            return refusal("this service is only read", 405, {"Allow": ", ".join(METHODS)} | _CLOSE)
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_ADDRESS:
            return refusal(f"an address of more than {_LONGEST_ADDRESS} characters", 414, _CLOSE)
        lines = scope["headers"]
        if len(lines) > _MOST_HEADERS or sum(map(_length, lines)) > _LONGEST_HEADERS:
            return refusal("more headers than any client needs", 431, _CLOSE)
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return refusal("this service takes no content", 413, _CLOSE)
        if scope["method"] == "OPTIONS" and "origin" not in headers:
            return Response(status_code=204, headers={"Allow": ", ".join(METHODS)})
        return None

    def _is_ours(self, hosts: list[str]) -> bool:
        if len(hosts) != 1:
            return False
        try:
            parts = urlsplit(f"//{hosts[0]}")
            name = _plain(parts.hostname or "")
            _ = parts.port  # ValueError: no number
        except ValueError:
            return False
        if parts.netloc != hosts[0] or parts.username is not None or not name:
            return False
        return name in self._hosts or (self._any_address and is_address(name))


_CLOSE = {"Connection": "close"}


def _plain(name: str) -> str:
    return name.strip("[]").rstrip(".").lower()


def _length(line: tuple[bytes, bytes]) -> int:
    return len(line[0]) + len(line[1])


def is_address(name: str) -> bool:
    """Whether it is a number of IP, which nobody can make lead elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

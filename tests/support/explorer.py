"""The explorer in a real browser: pages of a running server, and whatever they complain of.

Playwright drives the Chromium that is installed; nothing is downloaded. It keeps an event loop in
the thread of the tests while it runs, so it is begun and ended with each module that needs it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from support.browser import BROWSER, FLAGS
from support.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

needs_explorer = pytest.mark.skipif(
    BROWSER is None or find_spec("playwright") is None,
    reason="no Chromium on PATH, or no playwright: the explorer was not looked at in a browser",
)
# Names other than loopback resolve nowhere: what asks for them fails, and is heard.
_ALONE = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",)
_HEARD = """document.addEventListener("securitypolicyviolation", event => console.error(
  `policy ${event.violatedDirective} broken by ${event.blockedURI} ${event.sourceFile}`))"""
_IDLE = """() => new Promise((done) => requestIdleCallback(
  () => requestAnimationFrame(() => setTimeout(done, 20)), { timeout: 1000 }))"""
WAIT = 30_000.0


@dataclass
class Looked:
    """A page of the explorer, with what went wrong on it.

    Parameters
    ----------
    page
        Playwright's page.
    served
        The server that it is of.
    complaints
        Errors and warnings of the console, errors that nobody caught, requests that left the
        origin or failed, answers of 5xx.
    asked
        Addresses that it asked for, in order, without the origin.
    """

    page: Page
    served: Served
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _open: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        page = self.page
        page.set_default_timeout(WAIT)
        page.add_init_script(_HEARD)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("requestfinished", self._finished)
        page.on("response", self._response)
        page.on("websocket", lambda socket: self.complaints.append(f"left: {socket.url}"))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text} ({message.location.get('url')})")

    def _request(self, request: Any) -> None:
        url = request.url
        if url.startswith(("data:", "blob:")):
            return
        if not url.startswith(f"{self.served.origin}/"):
            self.complaints.append(f"left: {url}")
        self.asked.append(url.removeprefix(self.served.origin))
        self._open.add(request)

    def _finished(self, request: Any) -> None:
        self._open.discard(request)

    def _failed(self, request: Any) -> None:
        self._open.discard(request)
        # What a view no longer needs is given up: that is how sliders stay quick.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.complaints.append(f"failed: {request.url} {request.failure}")

    def _response(self, response: Any) -> None:
        if response.status >= 500:
            self.complaints.append(f"answered {response.status}: {response.url}")

    def open(self, path: str = "/", **query: Any) -> Page:
        """Go to an address of the server, and wait until nothing is loaded any more."""
        self.page.goto(self.served.url(path, **query))
        self.page.wait_for_load_state("load")
        return self.settled()

    def settled(self) -> Page:
        """Wait until the page asks for nothing, has nothing to do and has drawn."""
        quiet = 0
        while quiet < 3:
            self.page.evaluate(_IDLE)
            quiet = 0 if self._open or self.page.locator(".busy").count() else quiet + 1
        return self.page

    def until(self, expression: str) -> Page:
        """Wait until an expression is true; Playwright's own way breaks the page's policy."""
        end = time.monotonic() + WAIT / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(30)
        return self.settled()

    @contextmanager
    def expecting(self, *patterns: str) -> Iterator[None]:
        """Complaints of the block that match one of these are meant; each has to be there."""
        before = len(self.complaints)
        yield
        fresh = self.complaints[before:]
        for pattern in patterns:
            assert any(re.search(pattern, text) for text in fresh), (pattern, fresh)
        rest = [text for text in fresh if not any(re.search(p, text) for p in patterns)]
        self.complaints[before:] = rest


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without a screen, of one module of tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = [flag for flag in FLAGS if flag != "--headless"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=[*options, *_ALONE])
        yield browser
        browser.close()


@contextmanager
def looking(browser: Browser, served: Served, **options: Any) -> Iterator[Looked]:
    """A page of one's own in a fresh profile; it fails for what it complains of.

    `options` are those of Playwright's contexts: ``viewport``, ``color_scheme``, …
    """
    options.setdefault("viewport", {"width": 1280, "height": 900})
    context = browser.new_context(**options)
    looked = Looked(context.new_page(), served)
    yield looked
    context.close()
    assert looked.complaints == [], "\n".join(looked.complaints)


@pytest.fixture
def looked(chromium: Browser, service: Served) -> Iterator[Looked]:
    """A page 1280 px wide on the server over `explored`."""
    with looking(chromium, service) as found:
        yield found

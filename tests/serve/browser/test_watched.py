"""What tests in a browser fail for is heard: each kind of complaint, made on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from support.explorer import Looked, looking, needs_explorer
from support.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_explorer


@pytest.fixture(scope="module")
def opened(chromium: Browser, service: Served) -> Iterator[Looked]:
    """One page that complaints are made on, one after the other."""
    with looking(chromium, service) as looked:
        looked.open()
        yield looked


def test_the_page_arrives_without_complaint(looked: Looked) -> None:
    page = looked.open()
    assert page.title()
    assert looked.asked[0] == "/"
    assert len(looked.asked) > 2


@pytest.mark.parametrize(
    ("script", "heard"),
    [
        ("console.error('oh')", "console: oh"),
        ("console.warn('oh')", "console: oh"),
        ("setTimeout(() => { throw new Error('late') })", "error: late"),
        ("Promise.reject(new Error('nobody'))", "error: nobody"),
        ("document.body.append(Object.assign(document.createElement('script'), "
         "{textContent: 'window.ran = 1'}))", "policy script-src"),
        ("document.body.innerHTML += '<b onclick=\"x()\">b</b>'; "
         "document.body.lastChild.click()", "policy script-src"),
        ("document.body.append(Object.assign(new Image(), {src: 'https://x.test/a.png'}))",
         "policy img-src"),
        ("fetch('https://x.test/data').catch(() => 0)", "policy connect-src"),
        ("fetch('/no/such/thing').catch(() => 0)", "404"),
    ],
)  # fmt: skip
def test_a_complaint_is_heard(opened: Looked, script: str, heard: str) -> None:
    page = opened.page
    page.evaluate(f"() => {{ {script}; }}")
    page.wait_for_timeout(100)
    opened.settled()
    assert any(heard in text for text in opened.complaints), opened.complaints
    assert page.evaluate("window.ran") is None
    opened.complaints.clear()


def test_what_is_expected_has_to_come(looked: Looked) -> None:
    looked.open()
    with pytest.raises(AssertionError, match="never"), looked.expecting("never"):
        pass

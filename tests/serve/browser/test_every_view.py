"""What holds of every view: it fits, can be read and reached, and says how to get its numbers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from support.explorer import looking, needs_explorer
from support.readable import check_readable
from support.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_explorer

LAYER = {"site": "mlp.fc2", "layer": "mm0.img", "step": "2"}
VIEWS = {
    "map": {"quantity": "absmax"}, "layer": LAYER, "compare": {"other": "other.zarr"},
    "plan": {}, "latents": {}, "weights": {},
}  # fmt: skip


@pytest.fixture(scope="module", params=VIEWS)
def shown(request: pytest.FixtureRequest, chromium: Browser, service: Served) -> Iterator[Page]:
    """Each view, wide and light, opened once: tests look at it and press Tab."""
    view = request.param
    with looking(chromium, service, color_scheme="light") as looked:
        yield looked.open(store="run.zarr", view=view, **VIEWS[view])


def check_fits(page: Page, *, dark: bool) -> None:
    found = check_readable(page)
    assert (found["ground"] < 0.2) == dark
    at_map = "view=map" in page.url
    assert at_map or page.locator("nav [aria-current=page]").count() == 1


def test_it_fits_and_can_be_read(shown: Page) -> None:
    check_fits(shown, dark=False)


@pytest.mark.parametrize("view", VIEWS)
def test_narrow_and_dark_it_fits_and_can_be_read(
    chromium: Browser, service: Served, view: str
) -> None:
    size = {"width": 400, "height": 900}
    with looking(chromium, service, viewport=size, color_scheme="dark") as looked:
        check_fits(looked.open(store="run.zarr", view=view, **VIEWS[view]), dark=True)


def test_it_shows_commands_that_are_commands(shown: Page) -> None:
    texts = shown.locator(".commands .command code").all_text_contents()
    lines, snippets = texts[::2], texts[1::2]
    assert any(lines)
    for line in "\n".join(lines).split("\n"):
        assert not line or shlex.split(line)[0] == "taqstore", line
    for snippet in snippets:
        compile(snippet, "shown", "exec")


def test_every_control_is_reached_by_keys_and_seen_to_be(shown: Page) -> None:
    reachable = shown.evaluate(_REACHABLE)
    reached: list[str] = []
    for _ in range(len(reachable) + 5):
        shown.keyboard.press("Tab")
        at = shown.evaluate(_FOCUSED)
        if at is None or at["mark"] in reached:
            break
        assert at["outlined"], at
        reached.append(at["mark"])
    assert sorted(reached) == sorted(reachable)


_REACHABLE = """() => [...document.querySelectorAll(
  "a[href], button, select, input, summary, textarea, [tabindex='0']")].filter(
  (e) => !e.disabled && e.checkVisibility({ visibilityProperty: true })
    && e.getBoundingClientRect().width > 0
    && !(e.type === "radio" && !e.checked)).map(
  (e, number) => { e.dataset.mark = String(number); return e.dataset.mark; })"""
_FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const style = getComputedStyle(e);
  const outlined = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
    || style.boxShadow !== "none";
  return { mark: e.dataset.mark ?? e.outerHTML.slice(0, 80), outlined };
}"""


@pytest.mark.parametrize("view", ["plan", "latents", "weights"])
def test_what_a_store_has_not_is_said_in_a_note(
    chromium: Browser, service: Served, view: str
) -> None:
    """A store of activations alone: nothing is refused, and what would be needed is named."""
    with looking(chromium, service) as looked:
        page = looked.open(store="other.zarr", view=view)
        check_readable(page)
        assert "taqstore " in page.locator("main").inner_text()

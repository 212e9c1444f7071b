"""Names in a store are text to the page: markup, marks that turn text, very long words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.explorer import Looked, looking, needs_explorer
from support.readable import measured
from support.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = needs_explorer

MARKUP = "<img src=x onerror=window.ran=1>\u202e&amp;</td><script>window.ran=1</script>"
HOSTILE = MARKUP + "w" * 3000
# Texts of answers that are names in a store, or come from its writer.
NAMES = ("mm0.img", "mlp.fc2", "adaround", "gptq", "rtn-w4", "mm0", "img")
INSIDE = """() => ({
  ran: window.ran,
  images: [...document.querySelectorAll("img")].map((e) => e.getAttribute("src")),
  scripts: [...document.querySelectorAll("script")].map((e) => e.getAttribute("src")),
  inline: [...document.querySelectorAll("*")].filter((e) => [...e.attributes].some(
    (a) => a.name.startsWith("on") || a.value.trim().startsWith("javascript:"))).length,
  text: document.body.innerText.replaceAll("\\u00ad", ""),
  options: [...document.querySelectorAll("option")].map((e) => e.textContent),
})"""


def check_harmless(looked: Looked) -> dict[str, Any]:
    found: dict[str, Any] = looked.page.evaluate(INSIDE)
    assert found["ran"] is None
    assert set(found["images"]) <= {"icon.svg"} | {
        src for src in found["images"] if src.startswith(("blob:", "api/"))
    }
    assert all(src and ":" not in src for src in found["scripts"])
    assert found["inline"] == 0
    return found


def renamed(document: Any, name: str, other: str) -> Any:
    """A document in which one text is another one, wherever it stands alone."""
    if isinstance(document, dict):
        return {key: renamed(value, name, other) for key, value in document.items()}
    if isinstance(document, list):
        return [renamed(value, name, other) for value in document]
    return other if document == name else document


def test_a_store_whose_name_and_prompts_are_markup_is_shown(looked: Looked) -> None:
    name = "<img src=x onerror=alert(1)> & \u202eb.zarr"
    for view in ("map", "layer", "latents"):
        page = looked.open(store=name, view=view)
        found = check_harmless(looked)
        assert name.replace("\u202e", r"\u202e") in found["options"]  # turns no text around
        assert page.get_by_label("Store").input_value() == name
    assert "<script>alert(1)</script>" in found["text"]  # a prompt
    assert "&lt;" not in found["text"]


@pytest.mark.parametrize("view", ["map", "layer", "compare", "plan", "weights"])
def test_names_of_layers_and_sets_are_text(chromium: Browser, service: Served, view: str) -> None:
    """No writer makes such names; whoever edits a store may."""

    def answer(route: Route) -> None:
        response = route.fetch()
        document = response.json()
        for name in NAMES:
            document = renamed(document, name, f"{name}{HOSTILE}")
        route.fulfill(response=response, body=json.dumps(document))

    with looking(chromium, service, viewport={"width": 400, "height": 900}) as looked:
        looked.page.route("**/api/stores/run.zarr/**", answer)
        looked.open(store="run.zarr", view=view, other="other.zarr")
        # What the page asks by such a name, the server does not have.
        looked.complaints[:] = [text for text in looked.complaints if "status of 40" not in text]
        found = check_harmless(looked)
        assert MARKUP[:30] in found["text"] + "".join(found["options"])
        widths = measured(looked.page)
        assert widths["scrolled"] <= widths["width"], widths["beyond"]

"""What a user does: points, clicks, slides, goes back, copies, shares; and what goes wrong."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.cli_runner import Runner
from support.explored_stores import SHAPE
from support.explorer import Looked, looking, needs_explorer
from support.served import Served, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_explorer

LAYER = {"store": "run.zarr", "view": "layer", "site": "mlp.fc2", "layer": "mm0.img", "step": "2"}
READOUT = ".heatmap .readout"


def asked_of(page: Page) -> dict[str, str]:
    """The state that the address holds."""
    found: dict[str, str] = page.evaluate(
        "Object.fromEntries(new URLSearchParams(location.search))"
    )
    return found


def figure(page: Page, name: str) -> str:
    """A number of the layer that stands below its name."""
    return page.locator(".figures div", has_text=name).first.locator("dd").inner_text()


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.split(" ")[0].replace("−", "-").replace(",", ""))


def rows_of(taq: Runner, line: str) -> list[dict[str, Any]]:
    """What the command that the page shows prints."""
    done = taq(*shlex.split(line)[1:], "--json")
    assert done.code == 0, done.err
    (table,) = json.loads(done.out)["tables"]
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def command(page: Page) -> str:
    return page.locator(".commands:visible .command code").first.inner_text()


def cells(page: Page) -> dict[tuple[str, int], str]:
    """Exact values of the map's table by row and column."""
    page.locator(".heatmap summary").first.click()
    page.locator(".heatmap tbody tr").first.wait_for()
    found: list[list[Any]] = page.evaluate(
        """() => [...document.querySelectorAll(".heatmap tbody tr")].map((row) => [
          row.querySelector("th").textContent,
          ...[...row.querySelectorAll("td")].map((cell) => cell.title)])"""
    )
    return {(row[0], n): value for row in found for n, value in enumerate(row[1:])}


@pytest.mark.parametrize(
    ("asked", "variable"),
    [
        ({"quantity": "absmax"}, "alpha"),
        ({"quantity": "sqnr", "bits": "4", "clip": "mse"}, "sqnr"),
    ],
)
def test_the_numbers_of_the_map_are_those_of_its_command(
    looked: Looked, taq: Runner, asked: dict[str, str], variable: str
) -> None:
    page = looked.open(store="run.zarr", view="map", by="site", **asked)
    shown = cells(page)
    rows = rows_of(taq, command(page))
    steps = sorted({row["step"] for row in rows})
    printed = {(row["site"], row["layer"], steps.index(row["step"])): row[variable] for row in rows}
    assert len(printed) == len(shown) > 50
    for (site, layer, column), value in printed.items():
        names = [name for name, at in shown if at == column and site in name]
        (name,) = [n for n in names if all(word in n for word in layer.split("."))]
        assert float(shown[name, column]) == pytest.approx(value, rel=1e-12), (name, column)


def test_the_numbers_of_a_layer_are_those_of_its_command(looked: Looked, taq: Runner) -> None:
    page = looked.open(**LAYER, bits=4, clip="percentile", percentile=99)
    (row,) = rows_of(taq, command(page))
    for name, variable in {
        "SQNR": "sqnr", "Expected squared error": "error", "Upper bound": "upper",
        "Lower bound": "lower", "Step size": "step_size", "Zero point": "zero_point",
    }.items():  # fmt: skip
        assert number(figure(page, name)) == pytest.approx(row[variable], rel=1e-3), name
    share = number(figure(page, "Clipped share")) / 100
    assert share == pytest.approx(row["clipped_share"], rel=1e-2)


def test_a_click_opens_the_layer_and_back_leads_to_the_map(looked: Looked) -> None:
    page = looked.open(store="run.zarr", view="map")
    stage = page.locator(".stage")
    box = stage.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 15)
    looked.until("document.querySelector('.readout').textContent.includes('step')")
    told = page.locator(READOUT).inner_text()
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + 15)
    looked.until("new URLSearchParams(location.search).get('view') === 'layer'")
    state = asked_of(page)
    assert state["layer"] in told
    assert f"step {state['step']}" in told
    heading = page.locator("h1").inner_text()
    assert state["layer"] in heading
    assert state["site"] in heading
    page.go_back()
    looked.until("document.querySelector('.stage') !== null")
    assert page.locator("h1").inner_text() == "Overview"
    page.go_forward()
    looked.until(f"document.querySelector('h1').textContent === '{heading}'")


def test_keys_alone_lead_through_the_map_into_a_layer(looked: Looked) -> None:
    page = looked.open(store="run.zarr", view="map")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "application":
            break
    told = []
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "PageDown", "Home"):
        page.keyboard.press(key)
        told.append(page.locator(READOUT).inner_text())
        assert page.locator(".heatmap [aria-live]").first.inner_text() == told[-1]
    assert len(set(told)) >= 4
    page.keyboard.press("Enter")
    looked.until("new URLSearchParams(location.search).get('view') === 'layer'")
    assert asked_of(page)["layer"] in told[-1]


def test_a_slider_changes_numbers_and_the_address(looked: Looked) -> None:
    page = looked.open(**LAYER)
    before = figure(page, "SQNR")
    slider = page.get_by_label("Bits", exact=True)
    slider.focus()
    seen = [number(before)]
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
        looked.settled()
        seen.append(number(figure(page, "SQNR")))
    assert seen == sorted(seen, reverse=True)
    assert seen[0] - seen[-1] > 10
    assert asked_of(page)["bits"] == "5"
    shared = page.url
    page.goto("about:blank")
    page.goto(shared)
    looked.settled()
    assert number(figure(page, "SQNR")) == seen[-1]
    assert slider.input_value() == "5"


def test_a_command_is_copied(chromium: Browser, service: Served) -> None:
    granted = ["clipboard-read", "clipboard-write"]
    with looking(chromium, service, permissions=granted) as looked:
        page = looked.open(store="run.zarr", view="map")
        page.locator(".commands:visible .copy").first.click()
        page.get_by_role("button", name="Copied").or_(page.get_by_text("Copied")).first.wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == command(page)


def test_two_stores_are_compared(looked: Looked, taq: Runner) -> None:
    page = looked.open(store="run.zarr", view="compare", other="other.zarr", quantity="absmax")
    first, second = page.locator(".commands:visible .command code").first.inner_text().splitlines()
    sides = [
        {(row["site"], row["layer"], row["step"]): row["alpha"] for row in rows_of(taq, line)}
        for line in (first, second)
    ]
    assert "run.zarr" in first
    assert "other.zarr" in second
    moved = page.evaluate(
        """() => [...document.querySelectorAll("main table")].filter(
          (table) => table.textContent.includes("ratio")).flatMap((table) =>
          [...table.querySelectorAll("tbody tr")].map(
            (row) => [...row.children].map((cell) => cell.title || cell.textContent)))"""
    )
    assert len(moved) >= 5
    for linear, step, one, two, ratio, *_ in moved:
        key = (*linear.split(" "), int(step))
        assert float(one) == pytest.approx(sides[0][key], rel=1e-12)
        assert float(two) == pytest.approx(sides[1][key], rel=1e-12)
        assert float(ratio) == pytest.approx(sides[1][key] / sides[0][key], rel=1e-9)


def test_a_theme_that_was_chosen_stays(looked: Looked) -> None:
    page = looked.open(store="run.zarr")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    assert page.evaluate(ground) != light
    page.reload()
    looked.settled()
    assert page.evaluate(ground) != light
    assert page.get_by_label("Theme").input_value() == "dark"


def test_what_the_server_refuses_is_said(looked: Looked) -> None:
    with looked.expecting("404"):
        page = looked.open(store="ran.zarr", view="map")
        assert "run.zarr" in page.get_by_role("alert").inner_text()
    with looked.expecting("40[04]"):
        page = looked.open(**{**LAYER, "layer": "mm7.img"})
        assert "mm7.img" in page.get_by_role("alert").first.inner_text()


def test_a_server_that_ended_is_said(chromium: Browser, explored: Any) -> None:
    with serving(explored.run) as served, looking(chromium, served) as looked:
        page = looked.open(store="run.zarr", view="map")
        served.interrupt()
        with looked.expecting("ERR_CONNECTION_REFUSED"):
            page.get_by_label("Quantity").select_option("sqnr")
            page.get_by_role("alert").wait_for()
        assert "taqstore serve" in page.get_by_role("alert").inner_text()


def test_a_store_that_grows_is_seen_to(chromium: Browser, tmp_path: Path) -> None:
    from support.growing_store import write_images

    path = tmp_path / "run.zarr"
    write_images(path, SHAPE, range(1))
    with serving(path) as served, looking(chromium, served) as looked:
        page = looked.open(store="run.zarr", view="map")
        before = cells(page)
        write_images(path, SHAPE, range(1, SHAPE.images))
        looked.open(store="run.zarr", view="map")
        after = cells(page)
        assert after.keys() == before.keys()
        assert after != before
        assert all(float(after[key]) >= float(before[key]) for key in before)

"""Modules that all views of the page share: numbers, colours, addresses, questions, maps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from support.explorer import Looked, looking, needs_explorer
from support.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_explorer


@pytest.fixture(scope="module")
def plain(chromium: Browser, service: Served) -> Iterator[Looked]:
    """One page for functions that touch nothing of it."""
    with looking(chromium, service) as looked:
        yield looked


def called(looked: Looked, module: str, script: str, given: Any = None) -> Any:
    """What a function of a module of the page gives: ``(m, given) => ...``."""
    page = looked.page if looked.page.url.startswith("http") else looked.open()
    return page.evaluate(
        f"async (given) => ({script})(await import('/{module}.js'), given)",
        given,
    )


def _lightness(css: str) -> float:
    """CIE L* of ``rgb(r,g,b)``, after IEC 61966-2-1 and CIE 15."""
    channels = [int(part) / 255 for part in css[4:-1].split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    y = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * y ** (1 / 3) - 16 if y > (6 / 29) ** 3 else y * (29 / 3) ** 3


def test_numbers_keep_the_digits_that_they_show(plain: Looked) -> None:
    random.seed(0)
    values = [random.choice([-1, 1]) * 10 ** random.uniform(-12, 12) for _ in range(300)]
    values += [0.0, 1.0, -1.0, 9999.5, 0.00099995, 123456.0, 1e7, 99995.0]
    texts = called(plain, "format", "(m, xs) => xs.map(x => m.number(x, 4))", values)
    for value, text in zip(values, texts, strict=True):
        read = float(text.replace("−", "-").replace(",", ""))
        assert read == pytest.approx(value, rel=0.5001e-3), (value, text)
    odd = [None, "inf", "-inf"]
    assert called(plain, "format", "(m, xs) => xs.map(x => m.number(x))", odd) == ["–", "∞", "−∞"]
    exact = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    assert [float(t) for t in called(plain, "format", "(m, xs) => xs.map(m.exact)", exact)] == exact


def test_colours_rise_evenly_in_lightness(plain: Looked) -> None:
    script = "(m, kind) => { const s = m.colourScale({domain: [0, 1], kind});" \
        " return Array.from({length: 65}, (_, i) => s.css(i / 64)); }"  # fmt: skip
    rising = [_lightness(css) for css in called(plain, "scale", script, "sequential")]
    steps = [after - before for before, after in pairwise(rising)]
    assert min(steps) > 0
    assert rising[-1] - rising[0] > 70
    sides = [_lightness(css) for css in called(plain, "scale", script, "diverging")]
    assert sides[32] == max(sides)
    assert all(after > before for before, after in pairwise(sides[:33]))
    assert all(after < before for before, after in pairwise(sides[32:]))


@pytest.mark.parametrize(("log", "low"), [(False, -7.0), (True, 3e-4)])
def test_a_scale_tells_missing_from_least_and_infinite(
    plain: Looked, log: bool, low: float
) -> None:
    script = "(m, [low, log]) => { const s = m.colourScale({domain: [low, 40], log});" \
        " return [null, low, '-inf', 40, 'inf'].map(x => s.css(x)); }"  # fmt: skip
    missing, least, below, most, above = called(plain, "scale", script, [low, log])
    assert missing is None
    assert least == below
    assert most == above
    assert least != most


def test_ticks_lie_within_and_are_even(plain: Looked) -> None:
    random.seed(1)
    ranges = [
        sorted(random.uniform(-1, 1) * 10 ** random.uniform(-9, 9) for _ in "ab")
        for _ in range(100)
    ]
    found = called(
        plain, "plot/axis", "(m, rs) => rs.map(([a, b]) => m.linearTicks(a, b, 6))", ranges
    )
    for (least, most), ticks in zip(ranges, found, strict=True):
        assert 3 <= len(ticks) <= 13, (least, most, ticks)
        slack = 1e-6 * (most - least)
        assert least - slack <= ticks[0]
        assert ticks[-1] <= most + slack
        gaps = [after - before for before, after in pairwise(ticks)]
        assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-6, abs=slack)


def test_a_window_stays_within_the_map_whatever_is_done(plain: Looked) -> None:
    random.seed(2)
    acts = [
        [random.choice("zmrp"), *(random.uniform(-300, 300) for _ in range(4))] for _ in range(400)
    ]
    script = """(m, acts) => { const w = m.makeWindow(189, 25); const seen = [];
      for (const [act, a, b, c, d] of acts) {
        if (act === "z") w.zoom(Math.abs(a) / 100 + 0.1, b, c);
        if (act === "m") w.move(a, b);
        if (act === "r") w.reveal(Math.floor(Math.abs(a) % 189), Math.floor(Math.abs(b) % 25));
        if (act === "p") w.put(a, b, c, d);
        seen.push({...w.view, text: w.text()});
      } return seen; }"""
    for view in called(plain, "map/window", script, acts):
        assert 0 <= view["r0"] <= view["r1"] - 2 <= 187 + 1e-9
        assert 0 <= view["c0"] <= view["c1"] - 2 <= 23 + 1e-9


def test_an_address_says_what_the_state_was(looked: Looked) -> None:
    state = {"store": "a b&c=<i>#?.zarr", "site": "mlp.fc2", "layers": "100% “x” +1"}
    looked.open()
    script = "(m, s) => { m.write(s, {push: true}); return [m.read(), m.address({site: null})]; }"
    read, without = called(looked, "state", script, state)
    assert {name: read[name] for name in state} == state
    assert "site" not in without


def test_of_many_questions_the_newest_is_answered_and_few_are_asked(looked: Looked) -> None:
    looked.open()
    looked.asked.clear()
    script = """async (m) => { const line = m.line();
      const ask = (_, i) => line.ask("stores", {unused: i}).catch(e => e.status);
      return Promise.all(Array.from({length: 30}, ask)); }"""
    answers = called(looked, "api", script)
    looked.complaints = [text for text in looked.complaints if "400" not in text]
    assert answers[-1] is not None
    assert sum(one is not None for one in answers) == 2
    assert len([path for path in looked.asked if path.startswith("/api/stores")]) == 2


def test_names_of_a_map_are_text(looked: Looked) -> None:
    looked.open()
    bad = "<img src=x onerror='window.ran=1'>"
    script = """(m, bad) => import("/scale.js").then(({scaleOf}) => {
      const values = [[1, null], ["inf", 4]];
      const made = m.heatmap(document.getElementById("main"), {
        rows: [{label: bad, group: bad}, {label: "b", group: bad}],
        columns: [{label: bad}, {label: 1}],
        values, scale: scaleOf(values), label: bad, axes: {rows: bad}});
      made.node.querySelector("summary").click();
      made.node.querySelector(".stage").focus(); })"""
    called(looked, "heatmap", script, bad)
    page = looked.settled()
    page.locator(".heatmap .stage").last.press("ArrowDown")
    assert bad in page.locator(".heatmap .readout").last.inner_text()
    assert bad in page.locator(".heatmap table").last.inner_text()
    assert page.locator("main img").count() == 0
    assert page.evaluate("window.ran") is None

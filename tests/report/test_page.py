"""A whole page with hostile data: its figures and links; in Chromium it draws, fits and prints."""

from __future__ import annotations

import cProfile
import pstats
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.browser import Browser, needs_browser
from support.report_page import Page, hostile_store
from taqstore.plot import FIGURES
from taqstore.report import artist, build, findings
from taqstore.store.reader import open_store

# Appended to a copy of the page, which lets it run: where everything lies, and what was fetched.
PROBE = """<script>
const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
document.body.setAttribute("data-probe", JSON.stringify({
  figures: [...document.querySelectorAll("figure svg")].map(box),
  headings: [...document.querySelectorAll("h1, h2")].map(box),
  fetched: performance.getEntriesByType("resource").map(e => e.name),
  scrolled: document.documentElement.scrollWidth,
  width: document.documentElement.clientWidth,
  alerts: document.querySelectorAll("script").length,
}));
</script>"""
POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\".*?>", re.DOTALL)


@pytest.fixture(scope="module")
def profile() -> cProfile.Profile:
    """What was called while the page was made."""
    return cProfile.Profile()


@contextmanager
def _here(threads: int = 1) -> Iterator[Callable[..., Future[Any]]]:
    def submit(function: Callable[..., Any], *given: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*given))
        return done

    yield submit


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, profile: cProfile.Profile) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patched:
        # A profile sees its own thread.
        for module in (artist, findings):
            patched.setattr(module, "beside", _here)
        text = profile.runcall(build, open_store(hostile_store(folder / "run.zarr")))
    (folder / "report.html").write_text(text, encoding="utf-8")
    probed, dropped = POLICY.subn("", text)
    assert dropped == 1
    (folder / "probed.html").write_text(probed.replace("</body>", PROBE + "</body>"), "utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(tmp_path_factory.mktemp("profile"))


@needs_browser
def test_the_page_arrives_whole_and_without_complaint(browser: Browser, report: Path) -> None:
    done = browser(report, "--dump-dom")
    seen, written = Page(done.stdout), Page(report.read_text(encoding="utf-8"))
    assert seen.headings == written.headings
    assert seen.tags.count("svg") == written.tags.count("svg") > 5
    assert "script" not in seen.tags
    assert "CONSOLE" not in done.stderr


def test_every_question_has_a_figure_and_links_lead_somewhere(page: Page) -> None:
    keys = ["asymmetry", "drift", "outliers", "worst", "configurations", "groups", "bits"]
    assert [i for i in page.ids if i in keys] == keys
    assert page.tags.count("figure") >= len(keys) - 1
    assert page.tags.count("figure") == page.tags.count("svg")
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)


def test_sections_that_figures_name_are_there(page: Page) -> None:
    places = [row.report for row in FIGURES.values() if row.report]
    assert len(places) > 5
    assert {place.section for place in places} <= set(page.ids)


def test_every_question_is_asked_once(report: Path, profile: cProfile.Profile) -> None:
    store = open_store(report.with_name("run.zarr"))
    sites = sum(path.startswith("activations/") for path in store)
    calls: dict[str, int] = {}
    for (file, _, name), (_, count, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if Path(file).parent.name == "analysis":
            calls[name] = calls.get(name, 0) + count
    # Three widths, three rules, per step and static; the best bound per step is priced by `bits`.
    expected = {"errors": sites, "joint_bits": 2, "curves_of": sites}
    # Ranges of one layer's channels are drawn besides what is asked of every site.
    expected |= {"diagnostics": sites + 1, "outliers": sites, "temporal": sites, "curve": 1}
    assert {name: calls[name] for name in expected} == expected


def test_nothing_is_fetched_and_nothing_runs(text: str, page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    targets = [v for n, v in page.attributes if n in ("src", "href", "srcset", "data", "action")]
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert "default-src 'none'" in text
    styles = re.findall(r"url\(([^)]*)\)", text)
    assert all(target.startswith("#") for target in styles)
    assert "@import" not in text


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_figures_have_a_size_and_the_page_fits(browser: Browser, report: Path, width: int) -> None:
    probe = browser.probe(report.with_name("probed.html"), width)
    assert len(probe["figures"]) > 5
    assert all(w > 200 and h > 80 for w, h in probe["figures"])
    assert all(w > 0 and h > 0 for w, h in probe["headings"])
    assert probe["scrolled"] <= probe["width"]
    assert [name for name in probe["fetched"] if not name.startswith("data:")] == []
    assert probe["alerts"] == 1  # the probe itself: no data became a script


@needs_browser
def test_it_prints(browser: Browser, report: Path, tmp_path: Path) -> None:
    browser(report, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20


# Of a page in a frame: what is wider than it and does not scroll inside, what can be read.
NARROW = """page => {
  const root = page.documentElement, wide = root.clientWidth;
  const scrolls = e => e.closest(".scroll, .drawing, .contents ol");
  const beyond = e => e.getBoundingClientRect().right > wide + 1 && !scrolls(e);
  const inside = [...page.querySelectorAll(".scroll, .drawing")];
  return {
    wide, scrolled: root.scrollWidth,
    beyond: [...page.querySelectorAll("body *")].filter(beyond).map(e => e.outerHTML.slice(0, 80)),
    moving: inside.filter(e => e.scrollWidth > e.clientWidth).length,
    keyboard: inside.every(e => e.tabIndex === 0 && e.getAttribute("aria-label")),
    drawn: [...page.querySelectorAll("figure svg")].map(
      e => e.getBoundingClientRect().width / parseFloat(e.style.getPropertyValue("--width"))),
    captions: [...page.querySelectorAll("caption span")].every(
      e => e.getBoundingClientRect().width <= wide),
    sections: [...page.querySelectorAll("section")].map(e => e.id),
    contents: [...page.querySelectorAll(".contents a")].map(e => e.getAttribute("href").slice(1)),
    sticks: getComputedStyle(page.querySelector(".contents")).position,
    unnamed: [...page.querySelectorAll("section, nav, svg[role=img]")].filter(
      e => !(e.getAttribute("aria-label") || e.hasAttribute("aria-labelledby"))).length,
  };
}"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 400, 320])
def test_a_narrow_page_scrolls_only_inside_and_leads_everywhere(
    browser: Browser, text: str, width: int
) -> None:
    found = browser.measure(text, width, NARROW)
    assert found["wide"] >= width - 20  # a scroll bar
    assert (found["scrolled"] <= found["wide"], found["beyond"]) == (True, [])
    assert (found["moving"] > 8) == (width < 500)
    assert found["keyboard"]
    assert found["captions"]
    # Text of drawings is set in 10 to 12 px: three fifths of it can still be read.
    assert min(found["drawn"]) > 0.4
    assert found["contents"] == ["findings", *found["sections"]]
    assert (found["sticks"], found["unnamed"]) == ("sticky", 0)

"""Whether a page of the explorer can be read and reached: what a browser measures of it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Contrast is that of WCAG 2: text against what lies behind it, layers of colour mixed.
_MEASURE = """() => {
  const root = document.documentElement;
  const short = (e) => `${e.outerHTML.slice(0, 90)} "${(e.textContent ?? "").trim().slice(0, 30)}"`;
  const seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && e.getBoundingClientRect().width > 1;
  const scrolls = (e) => {
    for (let up = e; up && up !== root; up = up.parentElement) {
      const how = getComputedStyle(up).overflowX;
      if (how === "auto" || how === "scroll" || how === "hidden" || how === "clip") return true;
    }
    return false;
  };
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => {
    const a = top[3] + below[3] * (1 - top[3]);
    const mix = (i) => (a ? (top[i] * top[3] + below[i] * below[3] * (1 - top[3])) / a : 0);
    return [mix(0), mix(1), mix(2), a];
  };
  const behind = (e) => {
    let found = [0, 0, 0, 0];
    for (let up = e; up; up = up.parentElement) {
      found = over(found, rgba(getComputedStyle(up).backgroundColor));
      if (found[3] > 0.99) return found;
    }
    return over(found, rgba(getComputedStyle(root).colorScheme.includes("dark")
      && matchMedia("(prefers-color-scheme: dark)").matches ? "#121212" : "#ffffff"));
  };
  const light = ([r, g, b]) => [r, g, b].map((x) => x / 255)
    .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const e = node.parentElement;
    if (!node.data.trim() || !seen(e)) continue;
    if (e.closest("[aria-hidden=true], :disabled, option")) continue;
    const style = getComputedStyle(e);
    const ground = behind(e);
    const colour = e.closest("svg") ? style.fill : style.color;
    if (colour === "none") continue;
    const ratio = contrast(over(rgba(colour), ground), ground);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${short(e)}`);
  }
  const named = (e) => [
    e.getAttribute("aria-label"), e.title, e.alt, e.textContent, e.placeholder,
    ...[...(e.labels ?? [])].map((label) => label.textContent),
    ...(e.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent),
  ].some((text) => text?.trim());
  const own = "input, select, button, a[href], textarea, summary, svg, img, section, [role]";
  const controls = [...document.querySelectorAll(own)].filter(
    (e) => seen(e) && !e.closest("[aria-hidden=true]") && e.getAttribute("role") !== "status"
      && e.getAttribute("alt") !== "");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen)
    .map((e) => Number(e.tagName[1]));
  return {
    width: root.clientWidth,
    scrolled: Math.max(root.scrollWidth, document.body.scrollWidth),
    beyond: [...document.querySelectorAll("body *")].filter((e) => seen(e) && !scrolls(e)
      && e.getBoundingClientRect().right > root.clientWidth + 1).map(short).slice(0, 5),
    faint: faint.slice(0, 10),
    unnamed: controls.filter((e) => !named(e)).map(short).slice(0, 10),
    twice: ids.filter((id, i) => ids.indexOf(id) !== i),
    headings: levels,
    landmarks: ["header", "nav", "main"].filter((tag) => !document.querySelector(tag)),
    problems: [...document.querySelectorAll("[role=alert]")].filter(seen).map((e) => e.textContent),
    ground: light(behind(document.body)),
    small: [...document.querySelectorAll("button, select, input")].filter(
      (e) => seen(e) && e.type !== "checkbox" && e.type !== "radio"
        && e.getBoundingClientRect().height < 24).map(short).slice(0, 5),
  };
}"""


def measured(page: Page) -> dict[str, Any]:
    """Widths, faint texts, controls without a name and more of a page as it is."""
    found: dict[str, Any] = page.evaluate(_MEASURE)
    return found


def check_readable(page: Page) -> dict[str, Any]:
    """Fail where a page scrolls sideways, is too faint to read, or has what nobody can name."""
    found = measured(page)
    assert found["problems"] == [], found["problems"]
    assert found["scrolled"] <= found["width"], found["beyond"]
    assert found["beyond"] == [], found["beyond"]
    for what in ("faint", "unnamed", "twice", "landmarks", "small"):
        assert found[what] == [], (what, found[what])
    levels = found["headings"]
    assert levels[:1] == [1], levels
    assert levels.count(1) == 1, levels
    assert all(b - a <= 1 for a, b in pairwise(levels)), levels
    return found

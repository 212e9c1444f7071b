// The bar that tells what colours mean, with ticks, units, and what a missing value looks like.
import { el, fill } from "./dom.js";
import { tickTexts } from "./format.js";

const STOPS = 16;

/** A colour bar: `set({scale, label, unit, note, missing})`. */
export function colourBar() {
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  const ticks = el("div", { class: "ticks" });
  const name = el("div", { class: "name" });
  const missing = el("div", { class: "missing", hidden: true }, el("i", { class: "hatch" }), "missing");
  const node = el("div", { class: "legend" }, name, el("div", { class: "scale" }, bar, ticks), missing);

  node.set = ({ scale, label, unit = "", note = "", missing: some = false }) => {
    name.textContent = [label, unit, scale.log ? "log scale" : "", note].filter(Boolean).join(", ");
    const colours = Array.from({ length: STOPS + 1 }, (_, i) => scale.at(i / STOPS));
    bar.style.background = `linear-gradient(to right, ${colours.join(",")})`;
    fill(ticks, spaced(scale).map(({ text, share }) => (
      el("span", { style: { left: `${100 * share}%` } }, text))));
    missing.hidden = !some;
  };
  return node;
}

// Ticks that would stand in each other are left out; those at the ends stay within the bar.
function spaced(scale) {
  const [least, most] = scale.domain;
  const inside = scale.ticks.filter((tick) => tick >= least && tick <= most);
  const texts = tickTexts(inside);
  const kept = [];
  inside.forEach((tick, i) => {
    const share = scale.share(tick);
    if (kept.length === 0 || share - kept.at(-1).share > 0.12) kept.push({ text: texts[i], share });
  });
  return kept;
}

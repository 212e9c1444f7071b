// The frame of a chart: axes, ticks, names, marks, and a cursor for mouse and keys.
import { axis } from "./axis.js";
import { el, fill, live, onWidth, plain, svg, unique } from "../dom.js";
import { tickTexts } from "../format.js";
import { drawMarks, lanesOf } from "./marks.js";
import { onTheme } from "../theme.js";

const CHARACTER = 6.2;

/**
 * A chart that draws itself anew when its width, its theme or its data change.
 *
 * `settle(options)` fills in domains and the legend, `draw(plot, asked, x, y)` fills the group
 * `plot`; `points(asked)` gives the x values that the cursor stops at, `tell(asked, index)` what is
 * there, as text. Returns `{update, destroy, node}`.
 */
export function chart(root, options, { settle, draw, points, tell }) {
  let raw = { height: 240, marks: [], bands: [], legend: [], ...options };
  let asked = settle(raw);
  let at = -1;
  let axes = null;
  const help = unique("help");
  const picture = svg("svg", {
    class: "plot", tabindex: "0", role: "application", "aria-roledescription": "chart",
    "aria-label": asked.label, "aria-describedby": help,
  });
  const key = el("div", { class: "key" });
  const readout = el("output", { class: "readout", "data-hint": "Point at the picture, or focus it and use the arrow keys." });
  const told = live();
  const node = el(
    "figure",
    { class: "chart" },
    el("div", { class: "above" }, readout),
    picture,
    el("figcaption", {}, key, el("span", { class: "spoken", id: help }, "Left and right arrow keys read values.")),
    told.node,
  );
  root.append(node);

  function redraw() {
    const width = node.clientWidth;
    if (width === 0) return;
    const lanes = lanesOf(asked.marks, width);
    const margin = marginOf(asked, lanes, width);
    axes = axesOf(asked, margin, width);
    picture.setAttribute("viewBox", `0 0 ${width} ${asked.height + margin.top}`);
    picture.setAttribute("width", width);
    picture.setAttribute("height", asked.height + margin.top);
    const clip = unique("clip");
    const plot = svg("g", { "clip-path": `url(#${clip})` });
    const frame = axes.box;
    draw(plot, asked, axes.x, axes.y);
    fill(
      picture,
      svg("clipPath", { id: clip }, svg("rect", {
        x: frame.left, y: frame.top - 1, width: frame.width, height: frame.height + 2,
      })),
      ...asked.bands.map((band) => bandOf(band, axes)),
      ...gridOf(asked, axes),
      plot,
      ...drawMarks(asked.marks, axes, width),
      at >= 0 ? cursorOf(axes.x.px(points(asked)[at]), frame) : null,
    );
  }

  function place(index, { spoken = false } = {}) {
    const stops = points(asked);
    if (stops.length === 0) return;
    at = Math.min(stops.length - 1, Math.max(0, index));
    const text = tell(asked, at);
    readout.textContent = plain(text);
    if (spoken) told.say(text);
    asked.onHover?.(at);
    redraw();
  }

  function nearest(px) {
    const stops = points(asked);
    let best = 0;
    for (let i = 1; i < stops.length; i += 1) {
      if (Math.abs(axes.x.px(stops[i]) - px) < Math.abs(axes.x.px(stops[best]) - px)) best = i;
    }
    return best;
  }

  picture.addEventListener("pointermove", (event) => {
    if (axes) place(nearest(event.clientX - picture.getBoundingClientRect().left));
  });
  picture.addEventListener("click", () => at >= 0 && asked.onPick?.(at));
  picture.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9, PageUp: -10, PageDown: 10 }[event.key];
    if (event.key === "Enter" && at >= 0) asked.onPick?.(at);
    if (by === undefined) return;
    event.preventDefault();
    // A chart that goes to the left with rising values is walked as it is seen.
    const turned = axes && axes.x.range[0] > axes.x.range[1] ? -by : by;
    place(at < 0 ? 0 : at + turned, { spoken: true });
  });
  const endWidth = onWidth(node, redraw);
  // Colours of lines are of the theme too.
  const endTheme = onTheme(() => update({}));

  function update(changes) {
    raw = { ...raw, ...changes };
    asked = settle(raw);
    if (changes.label) picture.setAttribute("aria-label", changes.label);
    if (at >= points(asked).length) at = -1;
    readout.textContent = at >= 0 ? plain(tell(asked, at)) : "";
    fill(key, asked.legend);
    redraw();
  }

  update({});
  return {
    update,
    node,
    destroy: () => {
      endWidth();
      endTheme();
      node.remove();
    },
  };
}

function marginOf({ y }, lanes, width) {
  const widest = Math.max(...textsOf(y).map((text) => text.length), 3);
  const named = y.label ? 16 : 4;
  return { left: Math.min(width / 4, widest * CHARACTER + named + 8), right: 12, bottom: 38, top: 6 + lanes * 13 };
}

function textsOf(side) {
  return tickTexts(axis({ domain: side.domain, range: [0, 1], scale: side.scale, linear: side.linear }).ticks);
}

function axesOf({ x, y, height }, margin, width) {
  const box = {
    left: margin.left, top: margin.top, width: width - margin.left - margin.right, height: height - margin.bottom,
  };
  const across = [box.left, box.left + box.width];
  return {
    box,
    x: axis({
      domain: x.domain, scale: x.scale, linear: x.linear, count: Math.max(2, Math.floor(box.width / 80)),
      range: x.reverse ? across.reverse() : across,
    }),
    y: axis({
      domain: y.domain, scale: y.scale, linear: y.linear, count: Math.max(2, Math.floor(box.height / 45)),
      range: [box.top + box.height, box.top],
    }),
  };
}

function gridOf(asked, { x, y, box }) {
  const below = box.top + box.height;
  const parts = [];
  const levels = tickTexts(y.ticks);
  y.ticks.forEach((tick, i) => {
    const at = y.px(tick);
    parts.push(svg("line", { class: "grid", x1: box.left, x2: box.left + box.width, y1: at, y2: at }));
    parts.push(svg("text", { class: "tick", x: box.left - 5, y: at + 4, "text-anchor": "end" }, levels[i]));
  });
  for (const { tick, text } of spaced(x)) {
    const at = x.px(tick);
    parts.push(svg("line", { class: "tickline", x1: at, x2: at, y1: below, y2: below + 4 }));
    parts.push(svg("text", { class: "tick", x: at, y: below + 16, "text-anchor": "middle" }, text));
  }
  parts.push(svg("line", { class: "axis", x1: box.left, x2: box.left + box.width, y1: below, y2: below }));
  parts.push(svg("text", {
    class: "name", x: box.left + box.width / 2, y: below + 32, "text-anchor": "middle",
  }, asked.x.label ?? ""));
  const up = box.top + box.height / 2;
  parts.push(svg("text", {
    class: "name", x: 11, y: up, "text-anchor": "middle", transform: `rotate(-90 11 ${up})`,
  }, asked.y.label ?? ""));
  return parts;
}

// Ticks of an axis that bends may crowd; those that would touch the one before are left out.
function spaced(side) {
  const kept = [];
  const texts = tickTexts(side.ticks);
  side.ticks.forEach((tick, i) => {
    const room = (texts[i].length + 2) * CHARACTER;
    const clear = kept.every((other) => Math.abs(side.px(other.tick) - side.px(tick)) > room);
    if (clear) kept.push({ tick, text: texts[i] });
  });
  return kept;
}

function bandOf({ from, to, kind = "" }, { x, box }) {
  const [a, b] = [x.px(from), x.px(to)].sort((one, other) => one - other);
  return svg("rect", { class: `band ${kind}`, x: a, width: Math.max(0, b - a), y: box.top, height: box.height });
}

function cursorOf(px, box) {
  return svg("line", { class: "cursor", x1: px, x2: px, y1: box.top, y2: box.top + box.height });
}

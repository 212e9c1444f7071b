// Groups of neighbouring steps: a strip whose edges are dragged, moved by keys, added, taken away.
import { button } from "./controls.js";
import { el, fill, live } from "./dom.js";
import { number } from "./format.js";

const HELP = "Drag an edge, or move it by arrow keys; Delete takes it away; a click between two steps adds one.";

/**
 * The strip. `onInput(cuts)` while an edge moves, `onChange(cuts)` when it is let go; cuts are
 * labels of the steps that begin a group after the first. `set({steps, sigma, cuts, parts})`.
 */
export function cutStrip({ onInput = () => {}, onChange = () => {} } = {}) {
  let steps = [];
  let sigma = null;
  let places = [];
  let parts = [];
  let held = -1;
  const cells = el("div", { class: "cells-row" });
  const edges = el("div", { class: "edges" });
  const told = live();
  const strip = el("div", { class: "strip", role: "group", "aria-label": "Groups of steps" }, cells, edges);
  const add = button({ label: "Add an edge", title: "In the middle of the longest group", onClick: () => halve() });
  const node = el("div", { class: "cuts" }, strip, el("div", { class: "above" }, el("p", { class: "note" }, HELP), add), told.node);

  const labels = () => places.map((place) => steps[place]);

  function draw() {
    const group = groups();
    fill(cells, steps.map((step, i) => el(
      "div",
      { class: `cell${group[i] % 2 ? " odd" : ""}`, title: sigma ? `sigma ${number(sigma[i], 4)}` : null },
      String(step),
    )), parts.length === places.length + 1 ? shares() : null);
    drawEdges();
  }

  // The cost of each group under its steps, as wide as the group.
  function shares() {
    const starts = [0, ...places, steps.length];
    return el("div", { class: "shares" }, parts.map((part, i) => el(
      "div",
      { style: { flex: String(starts[i + 1] - starts[i]) }, title: `${number(part.error, 6)} of the error` },
      el("span", {}, number(part.error, 2)),
    )));
  }

  function groups() {
    let at = 0;
    return steps.map((_, i) => (places.includes(i) ? (at += 1) : at));
  }

  function drawEdges() {
    const focused = [...edges.children].indexOf(document.activeElement);
    fill(edges, steps.slice(1).map((step, i) => edge(i + 1, step)));
    if (focused >= 0) edges.children[held > 0 ? held - 1 : focused]?.focus({ preventScroll: true });
  }

  function edge(place, step) {
    const isCut = places.includes(place);
    const left = `${(100 * place) / steps.length}%`;
    if (!isCut) {
      // For the mouse: with keys an edge is added by the button and moved by arrows.
      return el("div", {
        class: "gap", "aria-hidden": "true", style: { left }, title: `Begin a group at step ${step}`,
        onclick: () => put([...places, place], place),
      });
    }
    const text = `a group begins at step ${step}${sigma ? `, sigma ${number(sigma[place], 3)}` : ""}`;
    const made = el("div", {
      class: "edge", role: "slider", tabindex: "0", style: { left }, title: text,
      "aria-label": `Edge ${places.indexOf(place) + 1}`, "aria-valuemin": 1,
      "aria-valuemax": steps.length - 1, "aria-valuenow": place, "aria-valuetext": text,
    });
    made.addEventListener("keydown", (event) => key(event, place));
    made.addEventListener("pointerdown", (event) => drag(event, place));
    return made;
  }

  function put(list, at, { last = true } = {}) {
    places = [...new Set(list)].filter((p) => p > 0 && p < steps.length).sort((a, b) => a - b);
    parts = [];
    held = at;
    draw();
    if (at > 0) edges.children[at - 1]?.focus({ preventScroll: true });
    held = -1;
    (last ? onChange : onInput)(labels());
    told.say(`${places.length + 1} groups${places.length ? `, edges at steps ${labels().join(", ")}` : ""}`);
  }

  function halve() {
    const starts = [0, ...places, steps.length];
    const sizes = starts.slice(1).map((end, i) => end - starts[i]);
    const longest = sizes.indexOf(Math.max(...sizes));
    if (sizes[longest] < 2) return;
    const at = starts[longest] + Math.floor(sizes[longest] / 2);
    put([...places, at], at);
  }

  const others = (place) => places.filter((one) => one !== place);

  function key(event, place) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      put(others(place), places.find((one) => one !== place) ?? -1);
    } else if (by !== undefined) {
      event.preventDefault();
      const to = next(place, by);
      if (to !== null) put([...others(place), to], to);
    }
  }

  // An edge does not pass another one: two would become one.
  function next(place, by) {
    const to = place + by;
    return to < 1 || to >= steps.length || places.includes(to) ? null : to;
  }

  function drag(event, place) {
    event.preventDefault();
    let at = place;
    let moved = false;
    const before = others(place);
    const [least, most] = [Math.max(0, ...before.filter((p) => p < place)) + 1,
      Math.min(steps.length, ...before.filter((p) => p > place)) - 1];
    const move = (now) => {
      const box = strip.getBoundingClientRect();
      const share = (now.clientX - box.left) / box.width;
      const to = Math.min(most, Math.max(least, Math.round(share * steps.length)));
      if (to === at) return;
      at = to;
      moved = true;
      put([...before, at], at, { last: false });
    };
    const end = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
      if (moved) onChange(labels());
      else edges.children[at - 1]?.focus({ preventScroll: true });
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  node.set = (told_) => {
    steps = told_.steps;
    sigma = told_.sigma;
    parts = told_.parts ?? [];
    places = told_.cuts.map((label) => steps.indexOf(label)).filter((place) => place > 0);
    add.disabled = places.length >= steps.length - 1;
    draw();
  };
  node.cuts = labels;
  return node;
}

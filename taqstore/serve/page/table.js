// Tables: what a picture shows, for those who read rather than look.
import { el } from "./dom.js";
import { exact, number } from "./format.js";

/**
 * A table. `columns`: texts, or `{label, title, text}`; where `text` is given, a cell is text and
 * not a number. `rows`: lists of values; the first `heads` of each are headings of the row.
 * Numbers show few digits and have all of them as their title. `onRow(index)` makes a node for the
 * end of a row, `current` is the row that is marked.
 */
export function table({ columns, rows, caption, heads = 1, digits = 4, onRow = null, current = -1 }) {
  const named = columns.map((c) => (typeof c === "object" ? c : { label: c }));
  const head = el("tr", {}, named.map((c) => (
    el("th", { scope: "col", title: c.title, class: c.text ? "text" : null }, c.label))));
  const body = el("tbody", {}, rows.map((row, index) => {
    const cells = row.map((value, i) => cell(value, i < heads || named[i]?.text, i < heads, digits));
    const made = el("tr", { "aria-current": index === current ? "true" : null }, cells);
    if (onRow) made.append(el("td", {}, onRow(index)));
    return made;
  }));
  if (onRow) head.append(el("td", {}));
  const inside = el(
    "table",
    {},
    caption ? el("caption", {}, caption) : null,
    el("thead", {}, head),
    body,
  );
  // What scrolls must be reachable without a mouse.
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "table" }, inside);
}

function cell(value, isText, isHead, digits) {
  if (isHead) return el("th", { scope: "row" }, isNode(value) ? value : String(value));
  if (isNode(value) || isText) return el("td", { class: "text" }, isNode(value) ? value : String(value ?? "–"));
  return el("td", { title: exact(value) }, number(value, digits));
}

function isNode(value) {
  return value instanceof Node;
}

/** The table of a picture, made when it is first opened: thousands of cells cost time. */
export function tableBelow(label, make) {
  const node = el("details", { class: "table" }, el("summary", {}, label));
  let made = null;
  function refresh() {
    if (!node.open) return;
    made?.remove();
    made = make();
    node.append(made);
  }
  node.addEventListener("toggle", refresh);
  node.refresh = refresh;
  return node;
}

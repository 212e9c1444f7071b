// A heat map on canvas: thousands of cells, reached by mouse, finger and keys, and read out.
import { button, copy } from "./controls.js";
import { el, live, onWidth, plain, unique } from "./dom.js";
import { exact, number } from "./format.js";
import { drawMap, layOut } from "./map/draw.js";
import { gestures } from "./map/input.js";
import { table, tableBelow } from "./table.js";
import { onTheme } from "./theme.js";
import { makeWindow } from "./map/window.js";

const HELP = "Arrow keys move, Page Up and Down move ten rows, plus and minus zoom, 0 shows all, "
  + "Enter opens, C copies the exact value.";

/**
 * A heat map in `root`.
 *
 * `rows`: `{label, group, title}`, in order, those of a group together; `columns`: `{label, sub}`;
 * `values`: a list of values a row, null where missing; `scale`: of `scale.js`; `label`: what the
 * map is; `axes`: names of rows and columns, `{rows, columns, sub}`. `describe(row, column)` is the
 * text of a cell, `onPick(row, column)` opens one, `onHover(row, column)` is told where the eye is,
 * `onZoom(text)` is told which part is in sight (`zoom` sets it). Rows and columns are indices.
 *
 * Returns `{update(changes), destroy(), focus()}`.
 */
export function heatmap(root, options) {
  let asked = { axes: {}, onPick: null, onHover: null, onZoom: () => {}, ...options };
  let view = makeWindow(asked.rows.length, asked.columns.length);
  view.restore(asked.zoom);
  let cursor = { row: 0, column: 0, shown: false };
  let brush = null;
  let layout = null;
  let frame = 0;

  const help = unique("help");
  const canvas = el("canvas", { "aria-hidden": "true" });
  // An application: arrow keys are the map's own, as those of a grid that has no cells of its own.
  const stage = el(
    "div",
    {
      class: "stage", tabindex: "0", role: "application", "aria-roledescription": "heat map",
      "aria-label": asked.label, "aria-describedby": help,
    },
    canvas,
  );
  const readout = el("output", { class: "readout", "data-hint": "Point at a cell, or focus the map and use the arrow keys." });
  const told = live();
  const buttons = el(
    "div",
    { class: "zoom", role: "group", "aria-label": "Zoom" },
    button({ label: "+", title: "Zoom in (+)", "aria-label": "Zoom in", onClick: () => zoom(0.6) }),
    button({ label: "−", title: "Zoom out (−)", "aria-label": "Zoom out", onClick: () => zoom(1 / 0.6) }),
    button({ label: "All", title: "Show all (0)", onClick: () => { view.all(); changed(); } }),
  );
  const asTable = tableBelow("Show as table", () => table(tableOf(asked)));
  const node = el(
    "div",
    { class: "heatmap" },
    el("div", { class: "above" }, readout, buttons),
    stage,
    el("p", { class: "spoken", id: help }, HELP),
    told.node,
    asTable,
  );
  root.append(node);

  function draw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      const width = stage.clientWidth;
      if (width === 0) return;
      layout = layOut(canvas.getContext("2d"), asked, view, width);
      drawMap(canvas, asked, view, layout, { cursor, brush });
    });
  }

  function changed() {
    asked.onZoom(view.text());
    draw();
  }

  function zoom(factor, at = middle()) {
    view.zoom(factor, at.row, at.column, { onlyRows: asked.columns.length < 4 });
    changed();
  }

  function middle() {
    if (cursor.shown) return { row: cursor.row + 0.5, column: cursor.column + 0.5 };
    const { r0, r1, c0, c1 } = view.view;
    return { row: (r0 + r1) / 2, column: (c0 + c1) / 2 };
  }

  function point(row, column, { spoken = false } = {}) {
    const same = cursor.shown && cursor.row === row && cursor.column === column;
    cursor = { row, column, shown: true };
    if (same && !spoken) return;
    const text = textOf(asked, row, column);
    readout.textContent = plain(text);
    if (spoken) {
      told.say(text);
      view.reveal(row, column);
    }
    asked.onHover?.(row, column);
    draw();
  }

  const stop = gestures(stage, {
    cellAt: (x, y) => layout?.cellAt(x, y) ?? null,
    placeAt: (x, y) => layout?.placeAt(x, y) ?? null,
    counts: () => [asked.rows.length, asked.columns.length],
    cursor: () => cursor,
    view: () => view,
    changed,
    zoom,
    point,
    pick: (row, column) => asked.onPick?.(row, column),
    brush: (box) => { brush = box; draw(); },
    copy: async () => {
      const done = await copy(exact(asked.values[cursor.row]?.[cursor.column]));
      told.say(done ? "copied" : "not copied");
    },
  });
  const endWidth = onWidth(stage, draw);
  const endTheme = onTheme(draw);

  /** Change some of the options; the part in sight stays where rows and columns stay. */
  function update(changes) {
    const [rows, columns] = [asked.rows.length, asked.columns.length];
    asked = { ...asked, ...changes };
    if (asked.rows.length !== rows || asked.columns.length !== columns) {
      view = makeWindow(asked.rows.length, asked.columns.length);
      view.restore(changes.zoom);
      cursor = { row: 0, column: 0, shown: false };
      readout.textContent = "";
    } else if (cursor.shown) readout.textContent = plain(textOf(asked, cursor.row, cursor.column));
    if (changes.label) stage.setAttribute("aria-label", changes.label);
    asTable.refresh();
    draw();
  }

  /** Put the cursor on a cell without a word. */
  function mark(row, column) {
    cursor = { row, column, shown: true };
    readout.textContent = plain(textOf(asked, row, column));
    draw();
  }

  function destroy() {
    cancelAnimationFrame(frame);
    stop();
    endWidth();
    endTheme();
    node.remove();
  }

  draw();
  return { update, destroy, mark, focus: () => stage.focus(), node };
}

function textOf(asked, row, column) {
  if (row >= asked.rows.length || column >= asked.columns.length) return "";
  if (asked.describe) return asked.describe(row, column);
  const at = asked.rows[row];
  const value = asked.values[row][column];
  const of = [at.group, at.label, `${asked.axes.columns ?? ""} ${asked.columns[column].label}`];
  return `${of.filter(Boolean).join(" · ")}: ${number(value, 6)}`;
}

function tableOf({ rows, columns, values, label, axes }) {
  const names = rows.map((row) => [row.group, row.label].filter(Boolean).join(" "));
  return {
    caption: label,
    columns: [axes.rows ?? "row", ...columns.map((column) => `${axes.columns ?? ""} ${column.label}`.trim())],
    rows: rows.map((_, i) => [names[i], ...values[i]]),
  };
}

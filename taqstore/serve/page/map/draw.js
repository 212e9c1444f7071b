// How a heat map is laid out on a canvas and drawn: whole device pixels, labels where they fit.
import { plain } from "../dom.js";
import { hatching } from "./hatch.js";
import { colour } from "../theme.js";

const FONT = '11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif';
const LEAST_LABEL = 12;
/** The most that a row is high and a column wide. */
const ROW = 22;
const COLUMN = 140;

/** Where cells lie, for a width: edges, places of labels, and which cell is under a point. */
export function layOut(context, { rows, columns, height, axes }, window, width) {
  const narrow = width < 560;
  context.font = FONT;
  const names = [...new Set(rows.map((row) => String(row.label))), axes.columns ?? "", axes.sub ?? ""];
  const longest = Math.max(...names.map((name) => context.measureText(name).width), 24);
  const grouped = rows.some((row) => row.group);
  const groupWidth = grouped ? (narrow ? 16 : 20) : 0;
  const labelWidth = Math.min(narrow ? 90 : 180, Math.ceil(longest) + 10);
  const left = groupWidth + labelWidth;
  const bottom = columns.some((column) => column.sub) ? 34 : 20;
  // As high as rows want to be read, and no higher than the screen.
  const inner = height ?? Math.round(Math.min(rows.length * ROW, Math.max(420, 0.85 * innerHeight)));
  const { view } = window;
  const box = { left, top: 4, width: Math.min(width - left - 8, columns.length * COLUMN), height: inner };

  const x = (column) => box.left + ((column - view.c0) / (view.c1 - view.c0)) * box.width;
  const y = (row) => box.top + ((row - view.r0) / (view.r1 - view.r0)) * box.height;

  function placeAt(px, py) {
    const column = view.c0 + ((px - box.left) / box.width) * (view.c1 - view.c0);
    const row = view.r0 + ((py - box.top) / box.height) * (view.r1 - view.r0);
    return { row, column, inside: px >= box.left && px <= box.left + box.width && py >= box.top && py <= box.top + box.height };
  }

  function cellAt(px, py) {
    const { row, column, inside } = placeAt(px, py);
    if (!inside) return null;
    return {
      row: Math.min(rows.length - 1, Math.max(0, Math.floor(row))),
      column: Math.min(columns.length - 1, Math.max(0, Math.floor(column))),
    };
  }

  return { box, x, y, placeAt, cellAt, groupWidth, labelWidth, width, height: inner + bottom + box.top };
}

/** Draw all that is in sight. */
export function drawMap(canvas, asked, window, layout, { cursor, brush }) {
  const ratio = devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  const [w, h] = [Math.round(layout.width * ratio), Math.round(layout.height * ratio)];
  // Setting a size clears the canvas and costs time, so only when it changes.
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${layout.width}px`;
    canvas.style.height = `${layout.height}px`;
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, w, h);
  drawCells(context, asked, window.view, layout, ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = FONT;
  drawRowLabels(context, asked, window.view, layout);
  drawColumnLabels(context, asked, window.view, layout);
  if (cursor.shown) drawCursor(context, cursor, layout);
  if (brush) drawBrush(context, brush);
}

function seen(view, { rows, columns }) {
  return {
    rows: [Math.floor(view.r0), Math.min(rows.length, Math.ceil(view.r1))],
    columns: [Math.floor(view.c0), Math.min(columns.length, Math.ceil(view.c1))],
  };
}

function drawCells(context, asked, view, { box, x, y }, ratio) {
  const { rows, columns } = seen(view, asked);
  const hatch = hatching(context, ratio);
  const px = (value) => Math.round(value * ratio);
  context.save();
  context.beginPath();
  context.rect(px(box.left), px(box.top), px(box.width), px(box.height));
  context.clip();
  for (let r = rows[0]; r < rows[1]; r += 1) {
    const [top, end] = [px(y(r)), px(y(r + 1))];
    // A line of the page's own colour between groups, where rows are high enough to spare it.
    const gap = asked.rows[r].group !== asked.rows[r - 1]?.group && r > 0 ? Math.ceil(ratio) : 0;
    for (let c = columns[0]; c < columns[1]; c += 1) {
      const from = px(x(c));
      context.fillStyle = asked.scale.css(asked.values[r]?.[c]) ?? hatch;
      context.fillRect(from, top + gap, px(x(c + 1)) - from, end - top - gap);
    }
  }
  context.restore();
}

function drawRowLabels(context, { rows }, view, { box, y, groupWidth, labelWidth }) {
  const [from, to] = seen(view, { rows, columns: [] }).rows;
  const high = box.height / (view.r1 - view.r0);
  const every = Math.max(1, Math.ceil(LEAST_LABEL / high));
  context.fillStyle = colour("--ink-soft");
  context.textBaseline = "middle";
  context.textAlign = "right";
  let inGroup = 0;
  let last = -Infinity;
  for (let r = from; r < to; r += 1) {
    if (rows[r].group !== rows[r - 1]?.group) inGroup = 0;
    const middle = (Math.max(y(r), box.top) + Math.min(y(r + 1), box.top + box.height)) / 2;
    const fits = middle > box.top + 3 && middle < box.top + box.height - 3 && middle - last >= LEAST_LABEL;
    if (inGroup % every === 0 && fits) {
      last = middle;
      context.fillText(fitted(context, String(rows[r].label), labelWidth - 8), box.left - 5, middle);
    }
    inGroup += 1;
  }
  if (groupWidth) drawGroups(context, rows, [from, to], { box, y });
}

function drawGroups(context, rows, [from, to], { box, y }) {
  context.fillStyle = colour("--ink");
  context.textAlign = "center";
  for (let start = from; start < to;) {
    let end = start + 1;
    while (end < to && rows[end].group === rows[start].group) end += 1;
    const top = Math.max(y(start), box.top);
    const below = Math.min(y(end), box.top + box.height);
    if (start > from) {
      context.fillRect(0, Math.round(top), 18, 0.5);
    }
    if (below - top > 30) {
      context.save();
      context.translate(8, (top + below) / 2);
      context.rotate(-Math.PI / 2);
      context.fillText(shortened(context, rows[start].group, below - top - 4), 0, 0);
      context.restore();
    }
    start = end;
  }
}

// Of "attn.o_proj img" the end tells more than the beginning.
function shortened(context, name, width) {
  const end = name.slice(name.indexOf(".") + 1);
  return [name, end].find((text) => context.measureText(text).width <= width) ?? fitted(context, end, width);
}

function fitted(context, name, width) {
  const text = plain(name);
  if (context.measureText(text).width <= width) return text;
  let short = text;
  while (short.length > 1 && context.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}

function drawColumnLabels(context, { columns, axes }, view, { box, x }) {
  const [from, to] = seen(view, { rows: [], columns }).columns;
  const wide = box.width / (view.c1 - view.c0);
  const base = box.top + box.height;
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const [key, top, ink] of [["label", base + 4, "--ink"], ["sub", base + 18, "--ink-soft"]]) {
    context.fillStyle = colour(ink);
    const longest = Math.max(...columns.map((c) => context.measureText(String(c[key] ?? "")).width), 1);
    const every = Math.max(1, Math.ceil((longest + 6) / wide));
    for (let c = from; c < to; c += 1) {
      const middle = x(c + 0.5);
      if (c % every === 0 && middle >= box.left && middle <= box.left + box.width) {
        context.fillText(plain(columns[c][key] ?? ""), middle, top);
      }
    }
    const name = key === "label" ? axes.columns : axes.sub;
    if (name) {
      context.textAlign = "right";
      context.fillText(name, box.left - 8, top);
      context.textAlign = "center";
    }
  }
}

// Two lines, light within dark: seen on every colour of the scale.
function drawCursor(context, { row, column }, { box, x, y }) {
  const [left, top] = [x(column), y(row)];
  const [width, height] = [Math.max(4, x(column + 1) - left), Math.max(4, y(row + 1) - top)];
  if (left + width < box.left || top + height < box.top) return;
  if (left > box.left + box.width || top > box.top + box.height) return;
  context.lineWidth = 1.5;
  context.strokeStyle = "#000";
  context.strokeRect(left - 2, top - 2, width + 4, height + 4);
  context.strokeStyle = "#fff";
  context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
}

function drawBrush(context, [x0, y0, x1, y1]) {
  context.lineWidth = 1;
  context.fillStyle = "rgb(255 255 255 / 0.25)";
  context.strokeStyle = "#000";
  context.fillRect(x0, y0, x1 - x0, y1 - y0);
  context.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0);
}

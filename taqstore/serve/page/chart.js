// Charts of lines and of bars, as SVG.
import { padded } from "./plot/axis.js";
import { el, svg } from "./dom.js";
import { isNumber, number } from "./format.js";
import { chart } from "./plot/frame.js";
import { extent, lineColour } from "./scale.js";
import { isDark } from "./theme.js";

const DASHES = [null, "6 3", "2 3", "8 3 2 3"];

/**
 * Lines over x.
 *
 * `series`: `{name, x, y, colour, dash, points, line, steps, low, high}`; `points` marks each
 * value, `line: false` draws points alone, `steps` draws a value for each x as a level, `low` and
 * `high` a band around it. `x`, `y`: `{label, scale, domain, reverse, unit}`; `marks`: of
 * `marks.js`; `onPick(index)` and `onHover(index)` are told an index of the first series.
 */
export function lineChart(root, options) {
  return chart(root, options, {
    settle: (asked) => ({ ...withDomains(asked), legend: keyOf(asked.series) }),
    draw: (plot, { series }, x, y) => series.forEach((one, i) => drawLine(plot, one, i, { x, y })),
    points: ({ series }) => series[0]?.x ?? [],
    tell: ({ series, x, y }, index) => tellLine(series, x, y, index),
  });
}

function rowsOf(series, side) {
  return series.flatMap((one) => (side === "y" ? [one.y, one.low ?? [], one.high ?? []] : [one.x]));
}

function withDomains(options) {
  const { series, x = {}, y = {}, marks = [] } = options;
  const across = x.domain ?? extent(rowsOf(series, "x")) ?? [0, 1];
  const level = marks.map((mark) => mark.y).filter(isNumber);
  let rows = [...rowsOf(series, "y"), level];
  if (y.scale === "log") rows = rows.map((row) => row.filter((value) => value > 0));
  const found = extent(rows) ?? (y.scale === "log" ? [1, 10] : [0, 1]);
  const up = y.domain ?? padded(y.zero ? [Math.min(0, found[0]), Math.max(0, found[1])] : found, y.scale);
  const shown = across[0] === across[1] ? padded(across, x.scale) : across;
  return { ...options, x: { ...x, domain: shown }, y: { ...y, domain: up } };
}

function styleOf(one, index) {
  return { stroke: one.colour ?? lineColour(index, isDark()), dash: one.dash ?? DASHES[Math.floor(index / 7) % 4] };
}

function drawLine(plot, one, index, { x, y }) {
  const { stroke, dash } = styleOf(one, index);
  const shown = (value) => isNumber(value) && (y.scale !== "log" || value > 0);
  if (one.low && one.high) plot.append(area(one, { x, y, stroke, shown }));
  if (one.line !== false) {
    let path = "";
    let pen = false;
    one.x.forEach((at, i) => {
      if (!shown(one.y[i])) {
        pen = false;
        return;
      }
      const to = `${x.px(at).toFixed(1)} ${y.px(one.y[i]).toFixed(1)}`;
      path += pen ? (one.steps ? `H${x.px(at).toFixed(1)}V${y.px(one.y[i]).toFixed(1)}` : `L${to}`) : `M${to}`;
      pen = true;
    });
    plot.append(svg("path", { class: "line", d: path, "stroke-dasharray": dash, style: { stroke } }));
  }
  if (one.points || one.line === false) {
    one.x.forEach((at, i) => {
      if (shown(one.y[i])) plot.append(svg("circle", { cx: x.px(at), cy: y.px(one.y[i]), r: 2.6, style: { fill: stroke } }));
    });
  }
}

function area(one, { x, y, stroke, shown }) {
  const kept = one.x.map((_, i) => i).filter((i) => shown(one.low[i]) && shown(one.high[i]));
  const upper = kept.map((i) => `${x.px(one.x[i]).toFixed(1)} ${y.px(one.high[i]).toFixed(1)}`);
  const lower = kept.map((i) => `${x.px(one.x[i]).toFixed(1)} ${y.px(one.low[i]).toFixed(1)}`).reverse();
  return svg("path", { class: "area", d: `M${[...upper, ...lower].join("L")}Z`, style: { fill: stroke } });
}

function tellLine(series, x, y, index) {
  const at = series[0].x[index];
  const parts = series.map((one) => {
    const i = one.x.indexOf(at);
    return i < 0 ? null : `${one.name} ${number(one.y[i], 6)}${y.unit ? ` ${y.unit}` : ""}`;
  });
  const where = x.tell ? x.tell(index) : `${x.label ?? "x"} ${number(at, 5)}`;
  return `${where}: ${parts.filter(Boolean).join(", ")}`;
}

function keyOf(series) {
  if (series.length < 2) return [];
  return series.map((one, i) => {
    const { stroke, dash } = styleOf(one, i);
    const sample = one.line === false
      ? svg("circle", { cx: 11, cy: 5, r: 3, style: { fill: stroke } })
      : svg("line", { x1: 0, x2: 22, y1: 5, y2: 5, "stroke-width": 2, "stroke-dasharray": dash, style: { stroke } });
    return el("span", {}, svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, sample), one.name);
  });
}

/**
 * Bars over x: `bars`: `{left, right, value}`, three lists, or `{names, value}` for one bar a name.
 * `y.scale` "log" draws from half of the least count. The rest is as of `lineChart`; `tell(index)`
 * is the text of a bar.
 */
export function barChart(root, options) {
  return chart(root, options, {
    settle: barDomains,
    draw: drawBars,
    points: ({ bars }) => middles(bars),
    tell: (asked, index) => (asked.tell ? asked.tell(index) : tellBar(asked, index)),
  });
}

function middles(bars) {
  return bars.value.map((_, i) => (left(bars, i) + right(bars, i)) / 2);
}

const left = (bars, i) => bars.left?.[i] ?? i - 0.4;
const right = (bars, i) => bars.right?.[i] ?? i + 0.4;

function barDomains(options) {
  const { bars, x = {}, y = {} } = options;
  const count = bars.value.length;
  const across = x.domain ?? (count ? [left(bars, 0), right(bars, count - 1)] : [0, 1]);
  const counted = bars.value.filter((value) => isNumber(value) && value > 0);
  const most = Math.max(...counted, 1e-300);
  const least = y.scale === "log" ? Math.min(...counted, most) / 2 : Math.min(0, ...bars.value.filter(isNumber));
  const up = y.domain ?? [least, y.scale === "log" ? most * 1.5 : most * 1.04];
  return { ...options, x: { ...x, domain: across }, y: { ...y, domain: up } };
}

function drawBars(plot, { bars, fillOf }, x, y) {
  const base = y.range[0];
  // One path for all bars of a colour: two thousand elements would be slow to lay out.
  const paths = new Map();
  bars.value.forEach((value, i) => {
    if (!isNumber(value) || value <= 0) return;
    const colour = fillOf?.(i) ?? "";
    const [a, b] = [x.px(left(bars, i)), x.px(right(bars, i))].sort((one, other) => one - other);
    const top = y.px(value);
    const shape = `M${a.toFixed(2)} ${base}V${top.toFixed(2)}H${Math.max(b, a + 0.75).toFixed(2)}V${base}Z`;
    paths.set(colour, (paths.get(colour) ?? "") + shape);
  });
  for (const [colour, d] of paths) {
    plot.append(svg("path", { class: "bars", d, style: colour ? { fill: colour } : {} }));
  }
}

function tellBar({ bars, x, y }, i) {
  const where = bars.names?.[i] ?? `${x.label ?? "x"} ${number(left(bars, i), 5)} to ${number(right(bars, i), 5)}`;
  return `${where}: ${number(bars.value[i], 6)}${y.unit ? ` ${y.unit}` : ""}`;
}

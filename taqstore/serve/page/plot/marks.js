// Labelled lines across a chart: labels lie in lanes above it, so that none hides another.
import { svg } from "../dom.js";

const CHARACTER = 6.8;
const LANE = 13;
const MOST = 6;

function widthOf(label) {
  return (label?.length ?? 0) * CHARACTER + 10;
}

/** How many lanes labels of upright marks may need at a width. */
export function lanesOf(marks, width) {
  const labelled = marks.filter((mark) => mark.x !== undefined && mark.label);
  const total = labelled.reduce((sum, mark) => sum + widthOf(mark.label), 0);
  if (labelled.length === 0) return 0;
  return Math.min(MOST, Math.max(Math.min(labelled.length, 3), Math.ceil((1.8 * total) / width)));
}

/**
 * Marks: `{x | y, label, title, colour, dash}`. An upright one has its label above the frame, a
 * level one at the right end of its line.
 */
export function drawMarks(marks, { x, y, box }, width) {
  const upright = marks.filter((mark) => mark.x !== undefined);
  const inside = upright.filter((mark) => {
    const at = x.px(mark.x);
    return at >= box.left - 1 && at <= box.left + box.width + 1;
  });
  const sorted = [...inside].sort((a, b) => x.px(a.x) - x.px(b.x));
  const ends = new Array(lanesOf(marks, width)).fill(-Infinity);
  const drawn = sorted.flatMap((mark) => uprightMark(mark, { at: x.px(mark.x), box, ends, width }));
  const level = marks.filter((mark) => mark.y !== undefined);
  drawn.push(...level.flatMap((mark) => levelMark(mark, y.px(mark.y), box)));
  // Labels after all lines, so that no line crosses one.
  const isLabel = (node) => node.tagName === "text";
  return [...drawn.filter((node) => !isLabel(node)), ...drawn.filter(isLabel)];
}

function uprightMark({ label, title, colour, dash }, { at, box, ends, width }) {
  const style = colour ? { stroke: colour } : {};
  const line = { class: "mark", "stroke-dasharray": dash, style };
  if (!label) {
    const bare = svg("line", { ...line, x1: at, x2: at, y1: box.top, y2: box.top + box.height });
    if (title) bare.append(svg("title", {}, title));
    return [bare];
  }
  const room = widthOf(label);
  const left = Math.min(Math.max(at - room / 2, 2), width - room - 2);
  const lane = ends.findIndex((end) => end <= left);
  const fits = lane >= 0;
  if (fits) ends[lane] = left + room;
  const base = 11 + (fits ? lane : 0) * LANE;
  const text = fits
    ? svg("text", { class: "marklabel", x: left + 5, y: base, style: colour ? { fill: colour } : {} }, label)
    : null;
  const named = svg("line", { ...line, x1: at, x2: at, y1: fits ? base + 3 : box.top, y2: box.top + box.height });
  if (title || label) named.append(svg("title", {}, title || label));
  return text ? [named, text] : [named];
}

function levelMark({ label, colour, dash }, at, box) {
  const style = colour ? { stroke: colour } : {};
  const line = svg("line", {
    class: "mark", "stroke-dasharray": dash, style, x1: box.left, x2: box.left + box.width, y1: at, y2: at,
  });
  if (!label) return [line];
  const text = svg("text", {
    class: "marklabel", x: box.left + box.width - 4, y: at - 4, "text-anchor": "end",
    style: colour ? { fill: colour } : {},
  }, label);
  return [line, text];
}

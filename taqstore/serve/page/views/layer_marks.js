// Clip bounds on a histogram: marks of rules, and what would be clipped.
import { number } from "../format.js";

/** The parts of a domain that a range would clip, as bands of a chart. */
export function clippedParts(shown, [least, most]) {
  if (!shown) return [];
  const [lower, upper] = [Math.min(...[shown.lower].flat()), Math.max(...[shown.upper].flat())];
  const parts = [{ from: least, to: lower, kind: "out" }, { from: upper, to: most, kind: "out" }];
  return parts.filter(({ from, to }) => from < to);
}

/** A domain with a margin, of `linear` where the axis bends: a share of the far end is too much. */
export function padded([least, most], linear = null) {
  if (linear !== null) return [least - 0.1 * Math.abs(least) - linear, most + 0.1 * Math.abs(most) + linear];
  const margin = (most - least) * 0.02 || 1;
  return [least - margin, most + margin];
}

/**
 * Bounds of rules and, where it is known, of the range that is priced. Rules that choose the same
 * bound share a line and a label; a lower bound that mirrors the upper one needs none of its own.
 */
export function marksOf(rules, shown, isOwn) {
  const places = new Map();
  for (const { rule, lower, upper } of rules) {
    for (const x of [lower, upper].flat()) {
      if (typeof x !== "number") continue;
      const key = x.toPrecision(4);
      if (!places.has(key)) places.set(key, { x, names: [], mirrored: x === lower && lower === -upper });
      if (!places.get(key).names.includes(rule)) places.get(key).names.push(rule);
    }
  }
  const marks = [...places.values()].map(({ x, names, mirrored }) => ({
    x,
    label: mirrored ? "" : shortened(names),
    title: `${names.join(", ")}: ${number(x, 6)}`,
    dash: "4 3",
  }));
  if (!shown) return marks;
  const own = [shown.lower, shown.upper].flat().map((x) => ({ x, label: isOwn ? "yours" : "", colour: "var(--accent)" }));
  return [...marks, ...own];
}

function shortened(names) {
  return names.length > 2 ? `${names[0]} +${names.length - 1}` : names.join(", ");
}

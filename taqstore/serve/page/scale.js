// Colours of values: even to the eye, told apart by the colour-blind, few stops and straight lines.
import { isNumber, numeric } from "./format.js";
import { linearTicks, logTicks } from "./plot/axis.js";

// Lightness rises evenly from dark violet to yellow.
const SEQUENTIAL = [
  "#440154", "#482878", "#3e4989", "#31688e", "#26828e",
  "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
].map(rgbOf);

// Blue and orange stay apart with every common kind of colour blindness; equal steps of lightness.
const DIVERGING = [
  "#0b4f8a", "#2f7fbf", "#7db3dd", "#c5dcec", "#f2f2ef",
  "#f3d3b0", "#e39d57", "#bf6413", "#7f3b08",
].map(rgbOf);

// Okabe and Ito's, for lines; the order keeps neighbours apart, and both themes can carry them.
const LINES = {
  light: ["#0072b2", "#d55e00", "#00805f", "#b0508a", "#8a6100", "#2b7fb0", "#555555"],
  dark: ["#56b4e9", "#ff9d5c", "#2fc59a", "#e39bc6", "#f0c64a", "#9ad4f5", "#bbbbbb"],
};

function rgbOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** The colour of a line by its number. */
export function lineColour(index, dark) {
  const colours = dark ? LINES.dark : LINES.light;
  return colours[index % colours.length];
}

function between(stops, share) {
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  return stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (at - low)));
}

/** Least and greatest of the finite values in rows of values; null where there are none. */
export function extent(rows) {
  let least = Infinity;
  let most = -Infinity;
  for (const row of rows) {
    for (const value of row) {
      if (!isNumber(value)) continue;
      if (value < least) least = value;
      if (value > most) most = value;
    }
  }
  return least <= most ? [least, most] : null;
}

/** Whether values span so many decades that a linear scale would show one colour. */
export function spansDecades(rows) {
  let least = Infinity;
  let most = 0;
  for (const row of rows) {
    for (const value of row) {
      if (!isNumber(value)) continue;
      if (value < 0) return false;
      if (value > 0 && value < least) least = value;
      if (value > most) most = value;
    }
  }
  return most > 100 * least;
}

/**
 * A colour scale.
 *
 * `domain` is [least, most]; `kind` sequential or diverging (`centre` is then in the middle, and
 * both sides are as wide as the wider one); `log` takes logarithms; `reverse` makes the least value
 * the brightest. It has `css(value)`, null for what is missing, `share(value)` in [0, 1], `ticks`
 * and `at(share)`, the colour there.
 */
export function colourScale({ domain, kind = "sequential", log = false, centre = null, reverse = false }) {
  const stops = kind === "diverging" ? DIVERGING : SEQUENTIAL;
  const [least, most] = widened(domain, { kind, log, centre });
  const map = log ? Math.log : (x) => x;
  const low = map(least);
  const width = map(most) - low || 1;

  function share(value) {
    const x = numeric(value);
    if (Number.isNaN(x)) return null;
    // What has no logarithm lies below all that has one.
    const part = log && x <= 0 ? 0 : x === Infinity ? 1 : x === -Infinity ? 0 : (map(x) - low) / width;
    return Math.min(1, Math.max(0, part));
  }

  function at(part) {
    const [r, g, b] = between(stops, reverse ? 1 - part : part);
    return `rgb(${r},${g},${b})`;
  }

  function css(value) {
    const part = share(value);
    return part === null ? null : at(part);
  }

  const ticks = log ? logTicks(least, most, 6) : linearTicks(least, most, 7);
  return { css, share, at, ticks, log, domain: [least, most], kind };
}

function widened([least, most], { kind, log, centre }) {
  if (kind !== "diverging" || centre === null) return least < most ? [least, most] : spread(least, log);
  const map = log ? Math.log : (x) => x;
  const back = log ? Math.exp : (x) => x;
  const half = Math.max(Math.abs(map(most) - map(centre)), Math.abs(map(centre) - map(least))) || 1;
  return [back(map(centre) - half), back(map(centre) + half)];
}

// One value alone lies in the middle of its scale.
function spread(value, log) {
  if (log) return [value / 2, value * 2];
  const half = Math.abs(value) / 2 || 1;
  return [value - half, value + half];
}

/** The scale of rows of values, with logarithms where they span decades unless it is told. */
export function scaleOf(rows, { kind = "sequential", log, centre = null, reverse = false } = {}) {
  const domain = extent(rows) ?? [0, 1];
  const logarithmic = log ?? (kind === "sequential" && spansDecades(rows));
  if (logarithmic) domain[0] = leastPositive(rows, domain);
  return colourScale({ domain, kind, log: logarithmic, centre, reverse });
}

function leastPositive(rows, [least, most]) {
  let found = most > 0 ? most : 1;
  for (const row of rows) for (const x of row) if (isNumber(x) && x > 0 && x < found) found = x;
  return least > 0 ? least : found;
}

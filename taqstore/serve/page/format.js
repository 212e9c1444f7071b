// Numbers as text: sensible digits to look at, exact ones to copy.


/** Whether it is a number to draw: a missing one is null, an infinite one the text "inf". */
export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** What the server sent as a number of this language: "inf" and "-inf" too; NaN if missing. */
export function numeric(value) {
  if (typeof value === "number") return value;
  if (value === "inf") return Infinity;
  if (value === "-inf") return -Infinity;
  return NaN;
}

/** A number with some significant digits: `0.01234`, `1,234`, `1.2e-7`. */
export function number(value, digits = 4) {
  const x = numeric(value);
  if (Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e7 || size < 1e-4) return minus(trim(x.toExponential(Math.max(0, digits - 1))));
  if (Number.isInteger(x) && size < 1e7) return minus(x.toLocaleString("en-US"));
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const text = trim(x.toFixed(places));
  return minus(size >= 1e4 ? Number(text).toLocaleString("en-US") : text);
}

/** Ticks as text, with as many digits as tell neighbours apart. */
export function tickTexts(values) {
  for (let digits = 3; digits < 12; digits += 1) {
    const texts = values.map((value) => number(value, digits));
    if (new Set(texts).size === new Set(values).size) return texts;
  }
  return values.map(exact);
}

function trim(text) {
  const [digits, power] = text.split("e");
  const short = digits.includes(".") ? digits.replace(/0+$/, "").replace(/\.$/, "") : digits;
  return power === undefined ? short : `${short}e${power.replace("+", "")}`;
}

function minus(text) {
  return text.replace(/^-/, "−");
}

/** All digits, as JSON has them: what is copied. */
export function exact(value) {
  if (value === null || value === undefined) return "missing";
  return typeof value === "number" ? String(value) : String(value);
}

/** A share as per cent. */
export function percent(value, digits = 3) {
  return Number.isFinite(numeric(value)) ? `${number(100 * value, digits)} %` : number(value);
}

/** What stands behind a number of a unit, with the space before it. */
export function unit(name) {
  return name ? ` ${name}` : "";
}

/** A number with its unit. */
export function measured(value, name, digits = 4) {
  return Number.isNaN(numeric(value)) ? "missing" : `${number(value, digits)}${unit(name)}`;
}

/** Bytes in words. */
export function bytes(count) {
  const names = ["B", "kB", "MB", "GB", "TB"];
  let size = count;
  let at = 0;
  while (size >= 1000 && at < names.length - 1) {
    size /= 1000;
    at += 1;
  }
  return `${number(size, 3)} ${names[at]}`;
}

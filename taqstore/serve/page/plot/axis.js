// Scales of axes: where a value lies, and where its ticks are.

/** Round values that cut a range into about `count` parts. */
export function linearTicks(least, most, count) {
  if (!(most > least)) return [least];
  const raw = (most - least) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const part = raw / power;
  // The round step that is nearest by ratio: edges are geometric means of neighbours.
  const step = power * (part >= Math.sqrt(50) ? 10 : part >= Math.sqrt(10) ? 5 : part >= Math.SQRT2 ? 2 : 1);
  const ticks = [];
  // Counted in whole steps: adding a step again and again would end at 0.30000000000000004.
  for (let i = Math.ceil(least / step - 1e-9); i <= Math.floor(most / step + 1e-9); i += 1) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten in a range; with 2 and 5 between them where there are few, or every n-th. */
export function logTicks(least, most, count) {
  const low = Math.ceil(Math.log10(least) - 1e-9);
  const high = Math.floor(Math.log10(most) + 1e-9);
  const decades = high - low + 1;
  if (decades < 1) return linearTicks(least, most, count);
  if (decades <= 2) {
    const dense = [];
    for (let d = low - 1; d <= high; d += 1) {
      for (const m of [1, 2, 5]) {
        const x = Number((m * 10 ** d).toPrecision(12));
        if (x >= least * 0.999 && x <= most * 1.001) dense.push(x);
      }
    }
    return dense.length > 2 ? dense : linearTicks(least, most, count);
  }
  const every = Math.ceil(decades / count);
  const ticks = [];
  for (let d = low; d <= high; d += every) ticks.push(Number((10 ** d).toPrecision(12)));
  return ticks;
}

/**
 * An axis from a domain to pixels. `scale` is linear, log, or symlog: linear within `linear` of 0
 * and by logarithms beyond, for values of both signs whose tails matter. `px(value)`,
 * `value(px)`, `ticks`.
 */
export function axis({ domain, range, scale = "linear", count = 5, linear = 1 }) {
  const { to, back } = MAPS[scale] ?? MAPS.linear;
  const [least, most] = domain;
  const low = to(least, linear);
  const width = to(most, linear) - low || 1;
  const [from, until] = range;
  return {
    domain,
    range,
    scale,
    px: (x) => from + ((to(x, linear) - low) / width) * (until - from),
    value: (p) => back(low + ((p - from) / (until - from || 1)) * width, linear),
    ticks: ticksOf(scale, least, most, count, linear),
  };
}

const MAPS = {
  linear: { to: (x) => x, back: (y) => y },
  log: { to: (x) => Math.log10(Math.max(x, Number.MIN_VALUE)), back: (y) => 10 ** y },
  symlog: {
    to: (x, c) => Math.sign(x) * Math.log10(1 + Math.abs(x) / c),
    back: (y, c) => Math.sign(y) * c * (10 ** Math.abs(y) - 1),
  },
};

function ticksOf(scale, least, most, count, linear) {
  if (scale === "log") return logTicks(least, most, count);
  if (scale === "symlog") {
    const size = Math.max(Math.abs(least), Math.abs(most));
    const sides = size > linear ? logTicks(linear, size, Math.max(2, count / 2)) : [size];
    return [...sides.map((x) => -x).reverse(), 0, ...sides].filter((x) => x >= least && x <= most);
  }
  return linearTicks(least, most, count);
}

/** A domain with a margin on both sides, so that no point lies on the frame. */
export function padded([least, most], scale = "linear", share = 0.05) {
  if (scale === "log") {
    const factor = (most / least) ** share || 1;
    return least === most ? [least / 2, most * 2] : [least / factor, most * factor];
  }
  const margin = (most - least) * share || Math.abs(most) * share || 1;
  return [least - margin, most + margin];
}

// Rows of the map: which are wanted, in which order, and what stands beside them.
import { numeric } from "../format.js";

export const GROUPINGS = [
  { value: "site-stream", label: "site and stream" },
  { value: "site", label: "site" },
  { value: "block", label: "block" },
  { value: "stream", label: "stream" },
];

const inBlock = (row) => (row.projection ? `${row.block} ${row.projection}` : row.block);

const NAMES = {
  "site-stream": { group: (row) => `${row.site} ${row.stream}`, label: inBlock },
  site: { group: (row) => row.site, label: nameOf },
  block: { group: (row) => row.block, label: (row) => `${row.stream} ${row.site}` },
  stream: { group: (row) => row.stream, label: (row) => `${row.block} ${row.site}` },
};

/** A layer, with the projection of the three that attention has, where they are apart. */
export function nameOf(row) {
  return row.projection ? `${row.layer} ${row.projection}` : row.layer;
}

// Linears outside blocks go by their own names.
function named(row) {
  return { ...row, block: row.block || row.layer };
}

/** Rows of a document that the state wants, those of a group together, in the store's order. */
export function grouped(rows, state) {
  const names = NAMES[state.by] ?? NAMES["site-stream"];
  const words = (state.layers ?? "").split(/[\s,]+/).filter(Boolean);
  const site = state.layer ? "" : state.site;
  const kept = rows.map(named).filter((row) => (!site || row.site === site)
    && (!state.stream || row.stream === state.stream)
    && (words.length === 0 || words.some((word) => has(row, word))));
  const groups = new Map();
  for (const row of kept) {
    const group = names.group(row).trim();
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ ...row, group, label: names.label(row) });
  }
  // The name of a group has no room beside one row: the row says it.
  for (const [group, only] of groups) if (only.length === 1) only[0].label = group || only[0].layer;
  return [...groups.values()].flat();
}

// "mm1" is a block, not the beginning of mm10 to mm19.
function has(row, word) {
  return row.block === word || row.stream === word || row.layer === word || row.site === word
    || (!/\d$/.test(word) && `${row.site} ${row.layer}`.includes(word));
}

/** The words that rows have for something, each once. */
export function optionsOf(rows, what) {
  return [...new Set(rows.map(named).map((row) => row[what]))].filter(Boolean);
}

/** The worst cell of each row, worst first; none where neither end is bad. */
export function worst(rows, worse, count) {
  if (!worse) return [];
  const sign = worse === "high" ? -1 : 1;
  const cells = rows.map((row, r) => worstOf(row.values, sign, r)).filter(Boolean);
  // Where high is bad, 0 is as good as can be.
  const bad = cells.filter(({ key }) => worse === "low" || key !== 0);
  return bad.sort((a, b) => a.key - b.key).slice(0, count);
}

function worstOf(values, sign, row) {
  let best = null;
  values.forEach((value, column) => {
    const key = sign * numeric(value);
    if (!Number.isNaN(key) && (best === null || key < best.key)) best = { row, column, key };
  });
  return best;
}

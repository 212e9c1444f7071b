// Layers as a table of blocks: sites and streams down, blocks across.

/** Block and what follows it in the name of a layer: `mm0.img` is image of mm0. */
export function placeOf(layer) {
  const [first, ...rest] = String(layer).split(".");
  return /^(mm|uni|block)\d+$/.test(first) ? { block: first, rest: rest.join(".") } : { block: "–", rest: layer };
}

/**
 * Rows of `{site, layer}` as a map: `rows`, `columns`, `values` of a function, and `cells(row,
 * column)`, what lies in one. Layers outside of blocks are in a column of their own.
 */
export function byBlock(list, valueOf) {
  const blocks = [...new Set(list.map(({ layer }) => placeOf(layer).block))];
  const ordered = [...blocks.filter((block) => block !== "–"), ...blocks.filter((block) => block === "–")];
  const found = new Map();
  for (const one of list) {
    const { block, rest } = placeOf(one.layer);
    const key = `${one.site}\n${rest}`;
    // One name a row: groups of two rows have no room for names of their own.
    const label = `${one.site} ${rest}`.trim();
    if (!found.has(key)) found.set(key, { label, at: new Map() });
    found.get(key).at.set(block, one);
  }
  const rows = [...found.values()];
  const cells = (row, column) => rows[row]?.at.get(ordered[column]) ?? null;
  return {
    rows: rows.map(({ label }) => ({ label })),
    columns: ordered.map((block) => ({ label: block === "–" ? "outside" : block })),
    values: rows.map((_, i) => ordered.map((__, j) => {
      const cell = cells(i, j);
      const value = cell ? valueOf(cell) : null;
      return value === undefined || value === 0 ? null : value;
    })),
    cells,
  };
}

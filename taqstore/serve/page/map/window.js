// Which rows and columns of a heat map are in sight: zoomed, moved, kept within what there is.

const LEAST = 2;

/** A window on `rows` x `columns`; `r0`, `r1`, `c0`, `c1` are edges, not always whole. */
export function makeWindow(rows, columns) {
  const view = { r0: 0, r1: rows, c0: 0, c1: columns };

  function span(low, high, count) {
    const wide = Math.min(count, Math.max(Math.min(LEAST, count), high - low));
    const from = Math.min(Math.max(0, low), count - wide);
    return [from, from + wide];
  }

  function put(r0, r1, c0, c1) {
    [view.r0, view.r1] = span(r0, r1, rows);
    [view.c0, view.c1] = span(c0, c1, columns);
  }

  /** Factor below 1 zooms in; the cell at (row, column) stays where it is. */
  function zoom(factor, row, column, { onlyRows = false } = {}) {
    const by = onlyRows ? 1 : factor;
    put(
      row - (row - view.r0) * factor,
      row + (view.r1 - row) * factor,
      column - (column - view.c0) * by,
      column + (view.c1 - column) * by,
    );
  }

  function move(byRows, byColumns) {
    put(view.r0 + byRows, view.r1 + byRows, view.c0 + byColumns, view.c1 + byColumns);
  }

  /** Move as little as brings a cell into sight. */
  function reveal(row, column) {
    const need = (at, low, high) => (at < low ? at - low : at + 1 > high ? at + 1 - high : 0);
    move(need(row, view.r0, view.r1), need(column, view.c0, view.c1));
  }

  const isWhole = () => view.r0 === 0 && view.c0 === 0 && view.r1 === rows && view.c1 === columns;
  const all = () => put(0, rows, 0, columns);
  /** As text of an address, or "" where all is in sight. */
  const text = () => (isWhole() ? "" : [view.r0, view.r1, view.c0, view.c1].map((x) => Number(x.toFixed(1))).join("-"));

  function restore(words) {
    const parts = String(words ?? "").split("-").map(Number);
    if (parts.length === 4 && parts.every(Number.isFinite)) put(...parts);
  }

  return { view, put, zoom, move, reveal, isWhole, all, text, restore };
}

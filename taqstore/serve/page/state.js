// The state of the page is the query string of its address: every view can be shared.

/** What the address says, as an object of strings. */
export function read() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

/** The address of the page after some changes; null or "" takes a word away. */
export function address(changes, from = read()) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...from, ...changes })) {
    if (value !== null && value !== undefined && value !== "") words.set(name, String(value));
  }
  const text = words.toString();
  return text ? `${location.pathname}?${text}` : location.pathname;
}

/**
 * Change the address. `push` makes a step that Back undoes; without it the address changes in
 * place, as while a slider is dragged.
 */
export function write(changes, { push = false } = {}) {
  const to = address(changes);
  if (to === location.pathname + location.search) return read();
  if (push) history.pushState(null, "", to);
  else history.replaceState(null, "", to);
  return read();
}

/**
 * The address while something is dragged: one step of the history a drag, so that Back leads to
 * what was there before it. `move(words)` while it lasts, `end(words)` when it is let go.
 */
export function dragging() {
  let begun = false;
  const put = (words, more) => {
    const state = write(words, { push: !begun });
    begun = more;
    return state;
  };
  return { move: (words) => put(words, true), end: (words) => put(words, false) };
}

/** Call `f` when Back or Forward change the address; returns what stops it. */
export function onBack(f) {
  const listener = () => f(read());
  addEventListener("popstate", listener);
  return () => removeEventListener("popstate", listener);
}

/** A number of the state, or what stands for it where it is none or out of the range. */
export function asNumber(text, otherwise, { least = -Infinity, most = Infinity } = {}) {
  const value = text === undefined || text === "" ? NaN : Number(text);
  return Number.isFinite(value) && value >= least && value <= most ? value : otherwise;
}

/** What of the state goes along from view to view; the rest is of one view alone. */
const SHARED = [
  "store", "source", "batch", "quantity", "bits", "clip", "percentile", "symmetric", "site", "layer", "step",
];

/** The address of another view of what is looked at. */
export function viewAddress(view, state = read()) {
  const kept = Object.fromEntries(SHARED.filter((name) => state[name]).map((n) => [n, state[n]]));
  return address({ ...kept, view }, {});
}

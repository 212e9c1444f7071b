// Questions to the server. Numbers are its alone: nothing is computed anew here.

/** What the server answered in place of an answer: its one-liner and the status. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The address of an endpoint below `api/`; lists become repeated words, null is left out. */
export function url(path, params = {}) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") words.append(name, String(one));
    }
  }
  const text = words.toString();
  // Relative, so that the page works behind a proxy that serves it under a path.
  return `api/${path.replace(/^\/+/, "")}${text ? `?${text}` : ""}`;
}

/** A path of names, each of them encoded: `path("stores", store, "map")`. */
export function path(...names) {
  return names.map(encodeURIComponent).join("/");
}

/** The JSON document of an endpoint. Throws `ApiError` with the server's words, or AbortError. */
export async function get(where, params = {}, { signal } = {}) {
  let response;
  try {
    response = await fetch(url(where, params), { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server does not answer; is `taqstore serve` still running?", 0);
  }
  const text = await response.text();
  let document = null;
  try {
    document = JSON.parse(text);
  } catch {
    document = null;
  }
  if (response.ok && document !== null) return document;
  const said = document?.error ?? `the server answered ${response.status} ${response.statusText}`;
  throw new ApiError(String(said), response.status);
}

/** Whether a request ended because nobody wants its answer any more. */
export function isAborted(error) {
  return error?.name === "AbortError";
}

/**
 * A line for questions of which only the newest counts, such as those of a slider.
 *
 * `ask(path, params)` gives the document, or undefined where a newer question took its place. One
 * request is under way at a time, and while it is only the newest of those that wait is kept: the
 * picture follows the hand at the pace of the server, and no backlog grows.
 */
export function line({ onBusy = () => {} } = {}) {
  let running = null;
  let waiting = null;
  let closed = false;

  async function run(question) {
    running = question;
    onBusy(true);
    try {
      question.done(await get(question.path, question.params, { signal: question.signal }));
    } catch (error) {
      if (isAborted(error)) question.done(undefined);
      else question.failed(error);
    }
    running = null;
    const next = waiting;
    waiting = null;
    if (next && !closed) run(next);
    else onBusy(false);
  }

  function ask(where, params) {
    return new Promise((done, failed) => {
      const control = new AbortController();
      const question = { path: where, params, done, failed, control, signal: control.signal };
      if (closed) done(undefined);
      else if (running === null) run(question);
      else {
        waiting?.done(undefined);
        waiting = question;
      }
    });
  }

  /** Nobody waits any more. */
  function close() {
    closed = true;
    running?.control.abort();
    waiting?.done(undefined);
    waiting = null;
  }

  return { ask, close };
}

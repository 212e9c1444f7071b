// The shell: header, store, views by their words in the address, one view at a time.
import { get } from "./api.js";
import { select } from "./controls.js";
import { el, fill, problem } from "./dom.js";
import { onBack, read, viewAddress, write } from "./state.js";
import { choose, chosen } from "./theme.js";

/**
 * The views: `view=` of the address, what they are called, the module that shows each. Those that
 * are `alone` do without the list of all stores.
 */
const VIEWS = [
  { word: "map", label: "Overview", module: "./views/overview.js", alone: true },
  { word: "layer", label: "Layer", module: "./views/layer.js", alone: true },
  { word: "compare", label: "Compare", module: "./views/compare.js" },
  { word: "plan", label: "Plan", module: "./views/plan.js" },
  { word: "latents", label: "Latents", module: "./views/latents.js" },
  { word: "weights", label: "Weights", module: "./views/weights.js" },
];

/** Milliseconds that a view may take before it is shown without its numbers. */
const PATIENCE = 300;

const main = document.getElementById("main");
const header = document.getElementById("header");
let stores = [];
let leave = () => {};
let shown = 0;

function viewOf(state) {
  return VIEWS.find((view) => view.word === state.view) ?? VIEWS[0];
}

/** A change of the address that may change the view: a step that Back undoes. */
function go(changes) {
  write(changes, { push: true });
  render({ focus: true });
}

async function render({ focus = false } = {}) {
  const turn = (shown += 1);
  const state = settle(read());
  const view = viewOf(state);
  drawHeader(state);
  document.title = `${view.label} · ${state.store ?? "taqstore"}`;
  const root = el("div", { class: "view arriving" });
  const arrive = once(() => {
    leave();
    leave = () => {};
    fill(main, root);
    root.classList.remove("arriving");
    if (focus) {
      scrollTo(0, 0);
      main.focus({ preventScroll: true });
    }
  });
  // The view before stays until this one has its numbers, or keeps the reader waiting.
  const late = setTimeout(arrive, PATIENCE);
  try {
    const module = await import(view.module);
    if (turn !== shown) return;
    main.append(root);
    const end = await module.show(root, state, { api: { get }, go, store: state.store, stores });
    if (turn !== shown) {
      end?.();
      return;
    }
    arrive();
    leave = end ?? (() => {});
  } catch (error) {
    if (turn !== shown) return;
    arrive();
    fill(root, el("h1", {}, view.label), problem(error));
  } finally {
    clearTimeout(late);
    if (turn !== shown) root.remove();
  }
}

function once(f) {
  let done = false;
  return () => {
    if (!done) f();
    done = true;
  };
}

// A store that is not named is the first; one that is unknown is left for the server to refuse.
function settle(state) {
  return { ...state, store: state.store ?? stores[0]?.name, view: viewOf(state).word };
}

function drawHeader(state) {
  const picker = select({
    label: "Store",
    options: offered(state),
    value: state.store,
    // What is looked at in one store need not be in another: only the question goes along.
    onChange: (store) => go({ store, layer: null, step: null, zoom: null, batch: null }),
  });
  const links = VIEWS.map(({ word, label }) => {
    const current = word === state.view ? "page" : null;
    const link = el("a", { href: viewAddress(word, state), "aria-current": current }, label);
    link.addEventListener("click", follow);
    return el("li", {}, link);
  });
  fill(
    header,
    el("a", { class: "brand", href: "./" }, el("img", { src: "icon.svg", alt: "" }), "taqstore"),
    picker,
    el("div", { class: "end" }, themePicker()),
    el("nav", { "aria-label": "Views" }, el("ul", {}, links)),
  );
}

// Before the stores are listed, and where the one that is named is none of them, there is its name.
function offered({ store }) {
  const known = stores.map((one) => ({ value: one.name, label: one.name, title: one.address }));
  return known.some((one) => one.value === store) || !store ? known : [{ value: store, label: store }, ...known];
}

// A link stays a link: with Ctrl it opens a tab, without it the page stays.
function follow(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  history.pushState(null, "", event.currentTarget.href);
  render({ focus: true });
}

function themePicker() {
  return select({ label: "Theme", options: ["auto", "light", "dark"], value: chosen(), onChange: choose });
}

async function start() {
  onBack(() => render());
  const state = read();
  const view = viewOf(state);
  // The module comes while the stores are listed.
  import(view.module).catch(() => {});
  const listed = get("stores").then((answer) => { ({ stores } = answer); });
  // A store that the address names needs no list, where the view does without.
  if (state.store && view.alone) render();
  try {
    await listed;
  } catch (error) {
    if (state.store && view.alone) return;
    drawHeader(settle(read()));
    fill(main, el("h1", {}, "taqstore"), problem(error));
    return;
  }
  if (state.store && view.alone) drawHeader(settle(read()));
  else await render();
}

start();

// Elements from data. Text is always a text node: names in a store are never markup.

const SVG = "http://www.w3.org/2000/svg";
let counted = 0;

// Characters that turn the direction of text or are not seen: a name could pretend to be another.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** Text of data with hidden characters spelled out, as `\u202e`. */
export function plain(text) {
  return String(text).replace(HIDDEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Set what an element is told: `on…` listeners, `style` and `dataset` objects, attributes. */
function set(node, props) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = plain(value);
    else if (name === "style") {
      // Not as an attribute: the content security policy of the page refuses those.
      for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    } else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
}

function make(node, props, children) {
  set(node, props);
  node.append(...shownOf(children));
  return node;
}

function shownOf(children) {
  const there = children.flat().filter((child) => child !== null && child !== undefined);
  return there.map((child) => (child instanceof Node ? child : plain(child)));
}

/** An HTML element. `props.class`, `props.onclick`, `props.text`…; children are nodes or text. */
export function el(tag, props, ...children) {
  return make(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return make(document.createElementNS(SVG, tag), props, children);
}

/** Put children in the place of all that is in a root. */
export function fill(root, ...children) {
  root.replaceChildren(...shownOf(children));
  return root;
}

/** An id that nothing else on the page has. */
export function unique(prefix = "id") {
  counted += 1;
  return `${prefix}-${counted}`;
}

/** Text for screen readers alone. */
export function spoken(text, props) {
  return el("span", { class: "spoken", ...props }, text);
}

/** A region that screen readers read out when its text changes; `say(text)` changes it. */
export function live() {
  const node = el("p", { class: "spoken", "aria-live": "polite", role: "status" });
  return { node, say: (text) => { node.textContent = plain(text); } };
}

/** What the server or the network said, in place of a view. */
export function problem(error) {
  const text = error instanceof Error ? error.message : String(error);
  return el("p", { class: "problem", role: "alert" }, text);
}

/** Show that an answer is awaited: what was `answered` pales, and where nothing was it is said. */
export function showBusy(node, busy, answered) {
  node.classList.toggle("busy", busy && answered);
  node.classList.toggle("asking", busy && !answered);
  node.setAttribute("aria-busy", String(busy));
}

/** A section with a heading; `body` is where its content goes. */
export function section(title, { level = 2, note = "" } = {}, ...children) {
  const id = unique("section");
  const heading = el(`h${level}`, { id }, title);
  const told = note ? el("p", { class: "note" }, note) : null;
  const body = el("div", { class: "body" }, ...children);
  const node = el("section", { "aria-labelledby": id }, heading, told, body);
  return { node, body, heading };
}

/** Call `f` with the width of an element, now and whenever it changes; returns what stops it. */
export function onWidth(node, f) {
  let last = -1;
  const observer = new ResizeObserver(() => {
    const width = Math.floor(node.clientWidth);
    // A drawing that changes the height must not call itself.
    if (width === last || width === 0) return;
    last = width;
    f(width);
  });
  observer.observe(node);
  return () => observer.disconnect();
}

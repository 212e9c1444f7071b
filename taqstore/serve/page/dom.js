// Elements from data. Text is always a text node: names in a store are never markup.

const SVG = "http://www.w3.org/2000/svg";
let counted = 0;

/** Set what an element is told: `on…` listeners, `style` and `dataset` objects, attributes. */
function set(node, props) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
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
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
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
  root.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
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
  return { node, say: (text) => { node.textContent = text; } };
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

// Controls: each is an element with `input`, `value` to read and `set(value)` to change in silence.
import { el, live, unique } from "./dom.js";

function field(label, control, { hint = "", out = null } = {}) {
  const id = control.id || unique("control");
  control.id = id;
  const name = el("label", { for: id, title: hint || null }, label);
  const node = el("div", { class: "field" }, name, control, out);
  node.input = control;
  return node;
}

/** A choice of words. `options`: texts, or `{value, label, title, group, disabled}`. */
export function select({ label, options, value, hint, onChange = () => {} }) {
  const input = el("select", {});
  const node = field(label, input, { hint });

  node.setOptions = (list, chosen = input.value) => {
    const groups = new Map();
    input.replaceChildren();
    for (const option of list.map((o) => (typeof o === "object" ? o : { value: o, label: o }))) {
      const { value: word, label: text = word, title, group, disabled } = option;
      const made = el("option", { value: word, title, disabled }, String(text));
      if (!group) input.append(made);
      else {
        if (!groups.has(group)) {
          groups.set(group, el("optgroup", { label: group }));
          input.append(groups.get(group));
        }
        groups.get(group).append(made);
      }
    }
    node.set(chosen);
  };
  node.set = (word) => {
    if ([...input.options].some((o) => o.value === String(word))) input.value = String(word);
  };
  Object.defineProperty(node, "value", { get: () => input.value });
  node.setOptions(options, value);
  input.addEventListener("change", () => onChange(input.value));
  return node;
}

/**
 * A slider with its value beside it. `onInput` while it is dragged, `onChange` when it is let go;
 * `show(value)` is how a value is written, and what screen readers say.
 */
export function slider({
  label, min, max, step = 1, value, hint, show = String, onInput = () => {}, onChange = () => {},
}) {
  const input = el("input", { type: "range", min, max, step, value });
  const out = el("output", {});
  const node = field(label, input, { hint, out });
  node.classList.add("slider");
  out.htmlFor = input.id;

  function tell() {
    const text = show(Number(input.value));
    out.textContent = text;
    input.setAttribute("aria-valuetext", text);
  }

  node.set = (x) => {
    input.value = x;
    tell();
  };
  node.setRange = ({ min: least, max: most, step: by = step }) => {
    input.min = least;
    input.max = most;
    input.step = by;
    tell();
  };
  Object.defineProperty(node, "value", { get: () => Number(input.value) });
  input.addEventListener("input", () => {
    tell();
    onInput(Number(input.value));
  });
  input.addEventListener("change", () => onChange(Number(input.value)));
  tell();
  return node;
}

/** A box to tick. */
export function checkbox({ label, value = false, hint, onChange = () => {} }) {
  const input = el("input", { type: "checkbox" });
  input.checked = value;
  const node = el("label", { class: "check", title: hint || null }, input, el("span", {}, label));
  node.input = input;
  node.set = (on) => { input.checked = on; };
  Object.defineProperty(node, "value", { get: () => input.checked });
  input.addEventListener("change", () => onChange(input.checked));
  return node;
}

/** A number to type. */
export function numberField({ label, value = "", min, max, step = "any", hint, onChange = () => {} }) {
  const input = el("input", { type: "number", min, max, step, value, inputmode: "decimal" });
  const node = field(label, input, { hint });
  node.set = (x) => { input.value = x; };
  Object.defineProperty(node, "value", { get: () => input.value });
  input.addEventListener("change", () => onChange(input.value));
  return node;
}

/** A text to type, such as a filter; `onInput` with every letter. */
export function textField({ label, value = "", placeholder, hint, onInput = () => {} }) {
  const input = el("input", { type: "search", value, placeholder, spellcheck: "false" });
  const node = field(label, input, { hint });
  node.set = (x) => { input.value = x; };
  Object.defineProperty(node, "value", { get: () => input.value });
  input.addEventListener("input", () => onInput(input.value));
  return node;
}

/** A button. */
export function button({ label, title, onClick, ...rest }) {
  return el("button", { type: "button", title, onclick: onClick, ...rest }, label);
}

/** Put text on the clipboard; false where the browser refuses. */
export async function copy(text) {
  // The clipboard is there in secure contexts alone, and http is one at localhost and 127.0.0.1.
  if (navigator.clipboard && isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Refused by permission: the old way may still work.
    }
  }
  const area = el("textarea", { class: "spoken", readonly: true, "aria-hidden": "true", text });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

/** A button that copies: a text, or what a function gives then. */
export function copyButton(text, { label = "Copy", what = "" } = {}) {
  const told = live();
  const node = button({ label, class: "copy", "aria-label": what ? `${label} ${what}` : null });
  let later = 0;
  node.addEventListener("click", async () => {
    const done = await copy(typeof text === "function" ? text() : text);
    node.textContent = done ? "Copied" : "Press Ctrl+C";
    told.say(done ? "copied" : "the browser refuses to copy; select the text and press Ctrl+C");
    clearTimeout(later);
    later = setTimeout(() => { node.textContent = label; }, 1500);
  });
  const both = el("span", { class: "copying" }, node, told.node);
  both.input = node;
  return both;
}

/** A number that shows all its digits when it is pointed at, and gives them when it is pressed. */
export function copyable(text, all) {
  const told = live();
  const node = button({ label: text, class: "exact", title: `${all}; press to copy` });
  node.addEventListener("click", async () => told.say((await copy(all)) ? `${all} copied` : "not copied"));
  return el("span", {}, node, told.node);
}

/** The command line and the Python that give the numbers of a view; `set` when they change. */
export function commandBox({ cli = "", python = "", title = "The same numbers elsewhere" } = {}) {
  const codes = { cli: el("code", {}), python: el("code", {}) };
  const row = (name, key) => el(
    "div",
    { class: "command" },
    el("h3", {}, name),
    el("pre", { tabindex: "0", "aria-label": `${name} that gives these numbers` }, codes[key]),
    copyButton(() => codes[key].textContent, { what: name }),
  );
  const id = unique("commands");
  const node = el(
    "section",
    { class: "commands", "aria-labelledby": id },
    el("h2", { id }, title),
    row("Command line", "cli"),
    row("Python", "python"),
  );
  node.set = ({ cli: line = "", python: snippet = "" }) => {
    codes.cli.textContent = line;
    codes.python.textContent = snippet;
    node.hidden = !line && !snippet;
  };
  node.set({ cli, python });
  return node;
}

/** Controls in a row that wraps. */
export function toolbar(label, ...controls) {
  return el("div", { class: "controls", role: "group", "aria-label": label }, ...controls);
}

// What is taken away: a command line that makes what is shown, and a button that copies it.
import { copyButton } from "./controls.js";
import { el } from "./dom.js";

/** A command to take: `set({cli, note})`; hidden where there is none. */
export function takeAway(title) {
  const code = el("code", {});
  const note = el("p", { class: "note" });
  const node = el(
    "div",
    { class: "take" },
    el("h3", {}, title),
    el("pre", { tabindex: "0", "aria-label": title }, code),
    copyButton(() => code.textContent, { label: "Copy", what: title }),
    note,
  );
  node.set = ({ cli = "", note: told = "" } = {}) => {
    code.textContent = cli;
    note.textContent = told;
    node.hidden = !cli;
  };
  node.set();
  return node;
}

/** Numbers under their names: `set([[name, text, title], …])`. */
export function figures() {
  const node = el("dl", { class: "figures", "aria-live": "polite" });
  node.set = (pairs) => {
    node.replaceChildren(...pairs.filter(Boolean).map(([name, text, title]) => (
      el("div", { title }, el("dt", {}, name), el("dd", {}, text)))));
  };
  return node;
}

// Light, dark, or as the system has it. Pictures on canvas ask for colours and are told of changes.

const KEY = "taqstore-theme";
const CHOICES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

function stored() {
  try {
    return localStorage.getItem(KEY) ?? "auto";
  } catch {
    return "auto"; // A browser may refuse storage; the choice then lasts as long as the page.
  }
}

let choice = CHOICES.includes(stored()) ? stored() : "auto";

function apply() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  for (const listener of listeners) listener();
}

/** What was chosen: auto, light or dark. */
export function chosen() {
  return choice;
}

/** Choose, and keep the choice. */
export function choose(name) {
  choice = CHOICES.includes(name) ? name : "auto";
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // As above.
  }
  apply();
}

/** Whether the page is dark now. */
export function isDark() {
  return choice === "dark" || (choice === "auto" && dark.matches);
}

/** A colour of the style sheet: `colour("--ink")`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Call `f` when colours change; returns what stops it. */
export function onTheme(f) {
  listeners.add(f);
  return () => listeners.delete(f);
}

dark.addEventListener("change", apply);
apply();

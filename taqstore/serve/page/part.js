// A part of a view: a heading, one endpoint, what it draws, and the commands that give the same.
import { line, path } from "./api.js";
import { commandBox } from "./controls.js";
import { el, fill, problem, section, showBusy } from "./dom.js";

/** A chart or map in `root`: `draw(options)` makes it by `make(root, options)`, or changes it. */
export function drawing(make, root) {
  let drawn = null;
  return {
    draw: (options) => {
      if (drawn) drawn.update(options);
      else drawn = make(root, options);
      return drawn;
    },
    close: () => drawn?.destroy(),
  };
}

/**
 * A part. `endpoint` is its word below `api/stores/<store>/`, `draw(answer)` shows an answer;
 * `controls` are elements above the picture. `ask(params)` asks: only the newest answer is drawn,
 * what was there pales meanwhile, and a refusal is said in its place; `lack(why)` asks nothing and
 * says why. `commands(answer)` gives `{cli, python}`; null for a part whose commands are shown
 * elsewhere. `needs`: `[has, text]`, a function of the store that says whether it has what is asked
 * for, and what is said where not. What a store does not hold is no failure of a part, and is said
 * as plainly as the rest; of the `main` one of a view it is: what was named is not there.
 */
export function part(title, {
  store, endpoint, note = "", controls = null, draw, commands = (answer) => answer, needs = null, main = false,
}) {
  const made = section(title, { note });
  const trouble = el("div", {});
  const body = el("div", { class: "body" });
  const box = commandBox({ title: `${title}: the same numbers elsewhere` });
  const below = el("details", { class: "table" }, el("summary", {}, "Command line and Python"), box);
  below.hidden = true;
  made.body.append(...[controls, trouble, body, commands ? below : null].filter(Boolean));
  const pictures = [];
  let newest = "";
  let answered = false;
  const queue = line({ onBusy: (busy) => showBusy(body, busy, answered) });
  const where = path("stores", store ?? "", endpoint);

  async function ask(params) {
    const question = JSON.stringify(params);
    // What is on the screen needs no second answer.
    if (question === newest) return;
    newest = question;
    try {
      if (needs && !answered && !(await needs[0](store))) {
        lack(needs[1]);
        return;
      }
      const answer = await queue.ask(where, params);
      if (answer === undefined) return;
      fill(trouble);
      answered = true;
      body.hidden = false;
      if (controls) controls.hidden = false;
      box.set(commands?.(answer) ?? {});
      below.hidden = !answer.cli && !answer.python;
      draw(answer);
    } catch (error) {
      newest = "";
      const lacks = error.status === 404 && !main;
      fill(trouble, lacks ? el("p", { class: "note" }, error.message) : problem(error));
      // No empty picture below a refusal; one that was answered before stays.
      body.hidden = !answered;
    }
  }

  /** Say why there is nothing to ask for. */
  function lack(why) {
    newest = "";
    body.hidden = true;
    below.hidden = true;
    if (controls) controls.hidden = true;
    fill(trouble, el("p", { class: "note" }, why));
  }

  /** A picture in `root` by `make(root, options)`: made when it is first drawn, gone with the part. */
  function picture(make, root) {
    const one = drawing(make, root);
    pictures.push(one);
    return one;
  }

  function close() {
    queue.close();
    for (const one of pictures) one.close();
  }

  return { node: made.node, body, ask, lack, picture, close };
}

// Weight sets: what rounding changed, errors of linears and blocks, gates.
import { commandBox, select, toolbar } from "../controls.js";
import { get, path } from "../api.js";
import { el, fill, problem } from "../dom.js";
import { read, write } from "../state.js";
import { table } from "../table.js";
import { blocksPart, changesPart, errorsPart } from "./weights_parts.js";
import { gatesPart } from "./weights_gates.js";

/** Show the view; returns what cleans up. */
export async function show(root, state, { store, stores }) {
  const stop = new AbortController();
  const sets = el("div", {});
  const told = { store };
  const rounding = [changesPart(told), errorsPart(told), blocksPart(told)];
  const gates = gatesPart(told);
  const box = commandBox();
  const picker = select({
    label: "Weight set", options: ["…"],
    onChange: (set) => {
      write({ set, other: null, block: null }, { push: true });
      ask();
    },
  });
  fill(root, el("h1", {}, "Weights"), sets, toolbar("Which set", picker), ...rounding.map((part) => part.node), gates.node, box);
  let known = [];

  function ask() {
    const now = read();
    const one = known.find(({ set }) => set === now.set) ?? known[0];
    picker.hidden = known.length === 0;
    for (const part of rounding) part.node.hidden = !one;
    if (!one) return;
    picker.setOptions(known.map(({ set }) => set), one.set);
    for (const part of rounding) part.ask(one, known);
  }

  const groups = stores.find((one) => one.name === store)?.groups ?? ["trajectories/"];
  if (groups.some((group) => group.startsWith("trajectories/"))) gates.ask();
  else fill(gates.body, el("p", { class: "note" }, "No variant was run beside the model as it is: taqstore gate runs and judges them."));
  try {
    const answer = await get(path("stores", store ?? "", "weights"), {}, { signal: stop.signal });
    known = answer.sets;
    box.set(answer);
    fill(sets, known.length ? setsTable(known) : el("p", { class: "note" }, "The store holds no quantized weights: taqstore gptq or taqstore adaround makes them."));
    ask();
  } catch (error) {
    if (error.name !== "AbortError") fill(sets, problem(error));
  }
  return () => {
    stop.abort();
    for (const part of [...rounding, gates]) part.close();
  };
}

function setsTable(known) {
  const text = (label) => ({ label, text: true });
  return table({
    caption: "Weight sets of the store",
    columns: ["weight set", text("method"), text("grid"), text("bits"), text("group size"), "linears", "weights"],
    rows: known.map((one) => [one.set, one.method, one.grid, one.bits.join(", "), one.group_size ?? "all inputs", one.linears, one.weights]),
  });
}

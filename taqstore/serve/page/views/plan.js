// The plan: a budget of bits and groups of steps moved by hand, and what was measured.
import { el, fill } from "../dom.js";
import { dragging, read } from "../state.js";
import { groupsPart } from "./plan_groups.js";
import { frontierPart, gatesPart, policyPart } from "./plan_measured.js";
import { widthsPart } from "./plan_widths.js";

/** Show the view; returns what cleans up. */
export async function show(root, state, context) {
  const hand = dragging();
  const { store } = context;
  const told = {
    store,
    state: () => ({ ...read(), store }),
    move: hand.move,
    end: hand.end,
  };
  const parts = [
    widthsPart(told), groupsPart(told), frontierPart(told), policyPart(told), gatesPart(told),
  ];
  fill(
    root,
    el("h1", {}, "Plan"),
    el("p", { class: "note" }, "Expected errors are of each tensor by itself, worked out from its histogram; "
      + "measured ones are of final latents, from what a run kept of sensitivities and gates."),
    ...parts.map((part) => part.node),
  );
  // One after the other: the first is what is looked at first, and all share the server.
  for (const part of parts) part.start();
  return () => parts.forEach((part) => part.close());
}

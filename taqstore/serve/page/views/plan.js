// The plan: a budget of bits and groups of steps moved by hand, and what was measured.
import { el, fill } from "../dom.js";
import { dragging, read } from "../state.js";
import { groupsPart } from "./plan_groups.js";
import { frontierPart, gatesPart, policyPart } from "./plan_measured.js";
import { widthsPart } from "./plan_widths.js";

/** Show the view; returns what cleans up. */
export async function show(root, state, context) {
  const hand = dragging();
  const { store, stores } = context;
  const groups = stores.find((one) => one.name === store)?.groups ?? [];
  const there = (...heads) => heads.some((head) => groups.some((group) => group.startsWith(head)));
  const told = {
    store,
    state: () => ({ ...read(), store }),
    move: hand.move,
    end: hand.end,
  };
  const statistics = ["activations/", "pooled/"];
  const wanted = [
    { make: widthsPart, needs: statistics, without: "No statistics: taqstore collect observes them." },
    { make: groupsPart, needs: statistics, without: "" },
    {
      make: frontierPart, needs: ["sensitivity/linear/"],
      without: "No sensitivities of linears are stored: taqstore sensitivity measures what each does to the final latent.",
    },
    { make: policyPart, needs: ["sensitivity/step/", "activations/"], without: "" },
    {
      make: gatesPart, needs: ["trajectories/"],
      without: "No variant was run beside the model as it is: taqstore gate runs and judges them.",
    },
  ];
  // What a store cannot tell is said and not asked for.
  const parts = wanted.filter(({ needs }) => there(...needs)).map(({ make }) => make(told));
  const missing = wanted.filter(({ needs, without }) => without && !there(...needs)).map(({ without }) => without);
  fill(
    root,
    el("h1", {}, "Plan"),
    el("p", { class: "note" }, "Expected errors are of each tensor by itself, worked out from its histogram; "
      + "measured ones are of final latents, from what a run kept of sensitivities and gates."),
    ...parts.map((part) => part.node),
    ...missing.map((text) => el("p", { class: "note" }, text)),
  );
  // One after the other: the first is what is looked at first, and all share the server.
  for (const part of parts) part.start();
  return () => parts.forEach((part) => part.close());
}

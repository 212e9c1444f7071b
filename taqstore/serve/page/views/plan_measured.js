// What a run measured: formats of linears under a budget, steps to protect, variants judged.
import { barChart, lineChart } from "../chart.js";
import { select, slider, toolbar } from "../controls.js";
import { el, fill } from "../dom.js";
import { number } from "../format.js";
import { heatmap } from "../heatmap.js";
import { colourBar } from "../legend.js";
import { hasLinears, hasVariants } from "../measured.js";
import { part } from "../part.js";
import { colourScale, scaleOf } from "../scale.js";
import { asNumber, viewAddress } from "../state.js";
import { table, tableBelow } from "../table.js";
import { figures, takeAway } from "../take.js";
import { byBlock, placeOf } from "./plan_rows.js";

/** Formats of linears by sensitivities: the best for every linear under a budget. */
export function frontierPart({ store, state, move, end }) {
  const numbers = figures();
  const legend = colourBar();
  const [picture, map] = [el("div", {}), el("div", {})];
  const take = takeAway("Command that writes this allocation");
  let shown = null;
  const budget = slider({
    label: "Average bits of a weight", min: 2, max: 16, step: 0.1, value: asNumber(state().budget, 4.5), show: (x) => number(x, 3),
    onInput: (value) => ask(move({ budget: value })), onChange: (value) => ask(end({ budget: value })),
  });
  budget.classList.add("wide");
  const below = tableBelow("Linears as table", () => table({
    caption: "Format of every linear", columns: ["linear", { label: "format", text: true }, "bits", "error alone"],
    rows: shown.allocation.map(({ target, format, bits, error }) => [target, format, bits, error ?? null]),
  }));
  const made = part("By measured sensitivities of linears", {
    store, endpoint: "plan/frontier", draw,
    needs: [hasLinears, "No linear was quantized alone: taqstore sensitivity measures that."],
    note: "Errors of the final latent; what linears do alone is added up, as if they were independent (predicted) "
      + "and as vectors (first order).",
    controls: toolbar("Budget", budget),
  });

  function ask(now = state()) {
    return made.ask({ average: now.budget });
  }

  function draw(answer) {
    if (shown === null) {
      fill(made.body, numbers, el("div", { class: "columns" }, picture, el("div", {}, legend, map)), el("p", { class: "note" }), below, take);
    }
    shown = answer;
    const found = answer.budgets.map(({ budget: at }) => at);
    budget.setRange({ min: Math.ceil(Math.min(...found) * 10) / 10, max: 16 });
    if (document.activeElement !== budget.input) budget.set(answer.average);
    const at = answer.budgets.find(({ budget: one }) => one === answer.average) ?? answer.budgets.at(-1);
    numbers.set([
      ["bits spent", `${number(at.average_bits, 4)} of ${number(answer.average, 4)}`],
      ["predicted error", number(at.predicted_error, 4), String(at.predicted_error)],
      ["first order", number(at.first_order_error, 4), String(at.first_order_error)],
      ...answer.uniform.map(({ format, bits, error }) => [`all ${format} (${number(bits, 3)} bits)`, number(error, 4), String(error)]),
    ]);
    made.body.querySelector(".note").textContent = [answer.note, `Bits: ${answer.bits_counted}.`].filter(Boolean).join(" ");
    drawCurve(answer);
    drawMap(answer);
    below.refresh();
    take.set({ ...answer.config, note: "Document that taqstore gate --variant mixed --allocation runs and judges." });
  }

  function drawCurve({ budgets, uniform, average }) {
    const x = budgets.map((row) => row.average_bits);
    const options = {
      label: "Error of the final latent against average bits",
      series: [
        { name: "predicted", x, y: budgets.map((row) => row.predicted_error), points: true },
        { name: "first order", x, y: budgets.map((row) => row.first_order_error), dash: "6 3" },
        { name: "one format", x: uniform.map((row) => row.bits), y: uniform.map((row) => row.error), line: false },
      ],
      x: { label: "average bits" },
      y: { label: "error of the final latent" },
      marks: [{ x: average, label: "budget", colour: "var(--accent)" }],
    };
    chart.draw(options);
  }

  function drawMap({ allocation }) {
    const list = allocation.map((row) => ({ ...row, ...splitTarget(row.target) }));
    const { rows, columns, values, cells } = byBlock(list, (row) => row.bits);
    const scale = colourScale({ domain: [Math.min(...list.map((r) => r.bits)), Math.max(...list.map((r) => r.bits))] });
    legend.set({ scale, label: "bits of a weight", missing: values.some((row) => row.includes(null)) });
    const options = {
      rows, columns, values, scale, axes: { rows: "linear", columns: "block" }, label: "bits by linear and block",
      describe: (row, column) => {
        const cell = cells(row, column);
        return cell ? `${cell.target}: ${cell.format}, ${number(cell.bits, 4)} bits, alone ${number(cell.error, 4)}` : "not measured";
      },
    };
    heat.draw(options);
  }

  const chart = made.picture(lineChart, picture);
  const heat = made.picture(heatmap, map);
  return {
    node: made.node,
    start: () => ask(),
    close: made.close,
  };
}

// `mm0.img.mlp.fc2`: a site of a stream of a block.
function splitTarget(target) {
  const { block, rest } = placeOf(target);
  if (block === "–") return { site: "outside of blocks", layer: target };
  const [stream, ...site] = rest.split(".");
  return { site: site.join("."), layer: `${block}.${stream}` };
}

/** First and last steps to protect. */
export function policyPart({ store, state, move, end }) {
  const numbers = figures();
  const legend = colourBar();
  const [bars, map] = [el("div", {}), el("div", {})];
  const take = takeAway("Command that writes this policy");
  let shown = null;
  const protect = slider({
    label: "Protected steps", min: 0, max: 12, value: asNumber(state().protect, 6, { least: 0, most: 12 }),
    onInput: (value) => ask(move({ protect: value })), onChange: (value) => ask(end({ protect: value })),
  });
  const format = select({
    label: "Inputs at the other steps", options: ["…"], onChange: (word) => ask(end({ stepformat: word })),
  });
  const made = part("Steps to protect", {
    store, endpoint: "plan/policy", draw, controls: toolbar("Policy", protect, format),
    note: "Inputs at the first and last steps stay as they are, the others are quantized.",
  });

  function ask(now = state()) {
    return made.ask({ protect: now.protect, format: now.stepformat });
  }

  function draw(answer) {
    if (shown === null) fill(made.body, numbers, el("div", { class: "columns" }, el("div", {}, legend, map), bars), take);
    shown = answer;
    format.hidden = answer.formats.length < 2;
    format.setOptions(answer.formats.length ? answer.formats : [answer.format], answer.format);
    const { first, last } = answer.chosen;
    const value = answer.values[first]?.[last];
    const said = answer.what === "error" ? "error of the final latent" : "cost (no error of a latent)";
    numbers.set([
      ["protected", `first ${first}, last ${last}`],
      [said, number(value, 4), String(value)],
      ["none protected", number(answer.values[0][0], 4), String(answer.values[0][0])],
      ["from", answer.basis],
    ]);
    drawMap(answer, said);
    drawSteps(answer, said);
    take.set({ ...answer.config, note: "The diffusion_step_policy that runtimes read." });
  }

  function drawMap({ first, last, values, chosen }, said) {
    const scale = scaleOf(values);
    legend.set({ scale, label: said, missing: values.some((row) => row.includes(null)) });
    const options = {
      rows: first.map((count) => ({ label: String(count) })),
      columns: last.map((count) => ({ label: String(count) })),
      values, scale, label: `${said} by first and last steps protected`,
      axes: { rows: "first steps", columns: "last steps" },
      describe: (row, column) => `first ${first[row]}, last ${last[column]}: ${number(values[row][column], 6)}`,
    };
    heat.draw(options).mark(chosen.first, chosen.last);
  }

  function drawSteps({ steps, step_error: error }, said) {
    const options = {
      label: `${said} of each step alone`,
      bars: { left: steps.map((_, i) => i - 0.4), right: steps.map((_, i) => i + 0.4), value: error, names: steps.map((step) => `step ${step}`) },
      x: { label: "step, in order", domain: [-0.6, steps.length - 0.4] },
      y: { label: "alone" },
    };
    chart.draw(options);
  }

  const heat = made.picture(heatmap, map);
  const chart = made.picture(barChart, bars);
  return {
    node: made.node,
    start: () => ask(),
    close: made.close,
  };
}

/** Variants that were run: what their costs came to. */
export function gatesPart({ store, state }) {
  const made = part("What gates measured", {
    store, endpoint: "gates", draw, needs: [hasVariants, "No variant was run beside the model as it is: taqstore gate does that."],
    note: "Variants sampled beside the model as it is, on the same prompts and seeds.",
  });

  function draw({ variants }) {
    const names = ["variant", { label: "passes", text: true }, "bits of a weight", "mean cosine", "error of the final latent", "PSNR (dB)", "seeds"];
    fill(made.body, table({
      caption: "Measured cost of variants",
      columns: names,
      rows: variants.map((one) => [
        one.variant, one.passes ? "yes" : "no", one.average_bits, one.cosine.mean, one.final_error.mean, one.psnr.mean, one.seeds,
      ]),
    }), el("p", {}, el("a", { href: viewAddress("weights", state()) }, "Gates step by step")));
  }

  return { node: made.node, start: () => made.ask({}), close: made.close };
}

// A linear over the steps: extremes, the rule's bounds, polynomials of sigma, groups of steps.
import { lineChart } from "../chart.js";
import { select, toolbar } from "../controls.js";
import { el, fill } from "../dom.js";
import { number } from "../format.js";
import { part } from "../part.js";
import { read, write } from "../state.js";
import { table, tableBelow } from "../table.js";

/** The part; `onStep(step)` when a step is picked in the picture. */
export function stepsPart({ store, onStep }) {
  let chart = null;
  let shown = null;
  const over = select({
    label: "Over", options: ["sigma", "step"], value: read().over ?? "sigma",
    onChange: (word) => {
      write({ over: word === "sigma" ? null : word });
      draw(shown);
    },
  });
  const picture = el("div", { class: "picture" });
  const fits = el("div", {});
  const asTable = tableBelow("Show as table", () => tableOf(shown));
  const made = part("Over the steps", { store, endpoint: "trajectory", controls: toolbar("Axis", over), draw });
  fill(made.body, picture, fits, asTable);

  function draw(document) {
    shown = document;
    if (!document) return;
    const bySigma = over.value === "sigma" && document.sigma;
    const x = bySigma ? document.sigma : document.steps;
    const series = [
      ...document.series.map(({ name, values }) => ({ name, x, y: values, points: true })),
      ...(document.fits ?? []).map((fit) => ({
        name: fit.name, x: bySigma ? fit.sigma : x, y: fit.values, dash: "6 3",
      })),
    ];
    const at = document.steps.indexOf(Number(made.step));
    const options = {
      label: `Bounds of ${document.site ?? ""} ${document.layer ?? ""} over ${over.value}`,
      series,
      // Denoising goes from much noise to none: with sigma it reads from the right end to the left.
      x: { label: over.value, reverse: Boolean(bySigma), tell: (i) => `step ${document.steps[i]}, sigma ${number(document.sigma?.[i], 4)}` },
      y: { label: "value" },
      marks: [
        ...(at >= 0 ? [{ x: x[at], label: `step ${document.steps[at]}`, colour: "var(--accent)" }] : []),
        ...edges(document, x),
      ],
      onPick: (index) => onStep(document.steps[index]),
    };
    if (chart) chart.update(options);
    else chart = lineChart(picture, options);
    drawFits(document);
    asTable.refresh();
  }

  function drawFits(document) {
    const told = (document.fits ?? []).filter((fit) => fit.degree !== undefined);
    fill(fits, told.length === 0 ? null : el("p", { class: "note" }, told.map((fit) => (
      `${fit.name}: degree ${fit.degree}, R² ${number(fit.r2, 4)}. `))));
  }

  return {
    node: made.node,
    ask: ({ step, ...question }) => {
      made.step = step;
      // The step is a mark of the page alone; it asks nothing of the server.
      if (shown) draw(shown);
      return made.ask(question);
    },
    close: () => {
      made.close();
      chart?.destroy();
    },
  };
}

// Groups of steps begin halfway between the last of one and the first of the next.
function edges({ groups = [], steps }, x) {
  return groups.slice(1).map(({ steps: [first] }) => {
    const at = steps.indexOf(first);
    return { x: (x[at] + x[at - 1]) / 2, label: "", dash: "1 3", title: `a group begins at step ${first}` };
  });
}

function tableOf({ steps, sigma, series }) {
  return table({
    caption: "By step",
    columns: ["step", "sigma", ...series.map(({ name }) => name)],
    rows: steps.map((step, i) => [step, sigma?.[i], ...series.map(({ values }) => values[i])]),
  });
}

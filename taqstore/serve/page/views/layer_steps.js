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
  let shown = null;
  const over = select({
    label: "Over", options: ["sigma", "step"], value: read().over ?? "sigma",
    onChange: (word) => {
      write({ over: word === "sigma" ? null : word });
      draw(shown);
    },
  });
  const count = select({
    label: "Groups of steps", options: [""], value: "",
    hint: "Neighbouring steps that share a range",
    onChange: (groups) => {
      write({ groups: groups || null }, { push: true });
      made.ask({ ...made.question, count: groups });
    },
  });
  const picture = el("div", { class: "picture" });
  const fits = el("div", {});
  const asTable = tableBelow("Show as table", () => tableOf(shown));
  const made = part("Over the steps", {
    store, endpoint: "trajectory", controls: toolbar("Axis and groups", over, count), draw,
    commands: (answer) => ({
      cli: [answer.cli, answer.groups_cli].filter(Boolean).join("\n"),
      python: [answer.python, answer.groups_python].filter(Boolean).join("\n\n"),
    }),
  });
  fill(made.body, picture, fits, asTable);

  function draw(answer) {
    shown = answer;
    if (!answer) return;
    const bySigma = over.value === "sigma" && answer.sigma;
    const x = bySigma ? answer.sigma : answer.steps;
    const series = [
      ...answer.series.map(({ name, values }) => ({ name, x, y: values, points: true })),
      ...(answer.fits ?? []).map((fit) => ({
        name: fit.name, x: bySigma ? fit.sigma : x, y: fit.values, dash: "6 3",
      })),
    ];
    const at = answer.steps.indexOf(Number(made.step));
    const options = {
      label: `Bounds of ${answer.site ?? ""} ${answer.layer ?? ""} over ${over.value}`,
      series,
      // Denoising goes from much noise to none: with sigma it reads from the right end to the left.
      x: { label: over.value, reverse: Boolean(bySigma), tell: (i) => `step ${answer.steps[i]}, sigma ${number(answer.sigma?.[i], 4)}` },
      y: { label: "value" },
      marks: [
        ...(at >= 0 ? [{ x: x[at], label: `step ${answer.steps[at]}`, colour: "var(--accent)" }] : []),
        ...edges(answer, x),
      ],
      onPick: (index) => onStep(answer.steps[index]),
    };
    chart.draw(options);
    drawFits(answer);
    const numbers = answer.steps.map((_, i) => String(i + 1));
    count.setOptions([{ value: "", label: "fewest within 5 %" }, ...numbers], read().groups ?? "");
    asTable.refresh();
  }

  function drawFits(answer) {
    const told = (answer.fits ?? []).filter((fit) => fit.degree >= 0).map((fit) => (
      `${fit.name}: degree ${fit.degree}, R² ${number(fit.r2, 4)}`));
    const groups = answer.groups ?? [];
    if (groups.length) told.push(`${groups.length} groups of steps at ${answer.asked.bits} bits: ${groups.map(groupOf).join("; ")}`);
    const left = (answer.left_out ?? []).map((line) => `not told: ${line}`);
    fill(fits, [...told, ...left].map((line) => el("p", { class: "note" }, line)));
  }

  const chart = made.picture(lineChart, picture);
  return {
    node: made.node,
    ask: ({ step, ...question }) => {
      made.step = step;
      made.question = question;
      // The step is a mark of the page alone; it asks nothing of the server.
      if (shown) draw(shown);
      return made.ask({ ...question, count: read().groups });
    },
    close: made.close,
  };
}

function groupOf({ steps, lower, upper }) {
  const span = steps.length > 1 ? `${steps[0]} to ${steps.at(-1)}` : `${steps[0]}`;
  return `${span} (${number(lower)} to ${number(upper)})`;
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

// Bit widths of inputs under a budget of average bits, expected errors beside one width for all.
import { lineChart } from "../chart.js";
import { checkbox, select, slider, toolbar } from "../controls.js";
import { el, fill } from "../dom.js";
import { number, percent } from "../format.js";
import { heatmap } from "../heatmap.js";
import { colourBar } from "../legend.js";
import { part } from "../part.js";
import { colourScale } from "../scale.js";
import { asNumber } from "../state.js";
import { table, tableBelow } from "../table.js";
import { figures, takeAway } from "../take.js";
import { byBlock } from "./plan_rows.js";

const WIDTHS = [2, 3, 4, 5, 6, 8, 16];
const USUAL = [4, 6, 8];

/** The part: `start()` asks, `close()` ends it. */
export function widthsPart({ store, state, move, end }) {
  const numbers = figures();
  const legend = colourBar();
  const [picture, map] = [el("div", {}), el("div", {})];
  const take = takeAway("Command that writes this allocation");
  let shown = null;
  const average = slider({
    label: "Average bits", min: 4, max: 8, step: 0.05, value: asNumber(state().average, 5), show: (x) => number(x, 3),
    onInput: (value) => ask(move({ average: value })),
    onChange: (value) => ask(end({ average: value })),
  });
  average.classList.add("wide");
  const boxes = WIDTHS.map((width) => checkbox({
    label: String(width), value: chosen().includes(width), onChange: () => choose(),
  }));
  const widths = el("fieldset", { class: "choices" }, el("legend", {}, "Widths"), boxes);
  const per = select({
    label: "A width for", options: [{ value: "layer", label: "a layer" }, { value: "step", label: "a layer at a step" }],
    value: state().per, onChange: (word) => ask(end({ per: word === "layer" ? null : word })),
  });
  const weight = select({
    label: "Errors", options: [
      { value: "relative", label: "share of mean square" }, { value: "absolute", label: "as they are" },
    ], value: state().weight, onChange: (word) => ask(end({ weight: word === "relative" ? null : word })),
  });
  const affine = checkbox({
    label: "affine", value: state().symmetric === "false",
    onChange: (on) => ask(end({ symmetric: on ? "false" : null })),
  });
  const below = tableBelow("By site, as table", () => siteTable(shown));
  const made = part("Bit widths under a budget", {
    store, endpoint: "plan/widths", draw,
    note: "Inputs of linears. The allocation has the least sum of expected errors of all that meet the budget; "
      + "a range of least error for every width and step.",
    controls: toolbar("Budget", average, widths, per, weight, affine),
  });
  fill(made.body, el("p", { class: "note" }, "Pricing every width of every layer; the first time takes seconds."));

  function chosen() {
    const list = (state().widths ?? "").split(",").map(Number).filter((width) => WIDTHS.includes(width));
    return list.length > 1 ? list : USUAL;
  }

  function choose() {
    const list = WIDTHS.filter((_, i) => boxes[i].value);
    if (list.length < 2) return boxes.forEach((box, i) => box.set(chosen().includes(WIDTHS[i])));
    return ask(end({ widths: String(list) === String(USUAL) ? null : list.join(",") }));
  }

  function ask(now = state()) {
    const list = chosen();
    const least = list[0];
    const most = list.at(-1);
    average.setRange({ min: least, max: most });
    const wanted = now.average === undefined ? null : asNumber(now.average, null, { least, most });
    return made.ask({
      average: wanted, choice: list, per: now.per, weight: now.weight, symmetric: now.symmetric, source: now.source,
    });
  }

  function draw(answer) {
    if (shown === null) {
      fill(made.body, numbers, el("div", { class: "columns" }, picture, el("div", {}, legend, map)), below, take);
    }
    shown = answer;
    if (document.activeElement !== average.input) average.set(answer.average);
    numbers.set(numbersOf(answer));
    drawCurve(answer);
    drawMap(answer);
    below.refresh();
    take.set({ cli: `${answer.cli} --json > widths.json`, note: "JSON with the width of every layer, and what every width costs it." });
  }

  function drawCurve({ curve, choices, uniform, average: at, error, bits }) {
    const options = {
      label: "Expected error against average bits",
      series: [
        { name: "best allocation", x: curve.average, y: curve.error },
        { name: "one width for all", x: choices, y: uniform, line: false },
        { name: "this budget", x: [bits], y: [error], line: false },
      ],
      x: { label: "average bits" },
      y: { label: "expected error", scale: "log" },
      marks: [{ x: at, label: "budget", colour: "var(--accent)" }],
    };
    chart.draw(options);
  }

  function drawMap(answer) {
    const { rows, columns, values, cells } = answer.per === "step" ? byStep(answer) : byBlock(answer.rows, (row) => row.bits);
    const scale = colourScale({ domain: [answer.choices[0], answer.choices.at(-1)] });
    legend.set({ scale, label: "bits", missing: values.some((row) => row.includes(null)) });
    const axes = answer.per === "step" ? { rows: "layer", columns: "step" } : { rows: "site", columns: "block" };
    const options = {
      rows, columns, values, scale, axes, label: `bits by ${axes.rows} and ${axes.columns}`,
      describe: (row, column) => describe(cells(row, column), answer),
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

function numbersOf({ bits, average, error, uniform, choices, counts, units, per, weight }) {
  const share = weight === "relative" ? (x) => percent(x, 4) : (x) => number(x, 4);
  const what = per === "layer" ? "layers" : "layers at steps";
  return [
    ["bits spent", `${number(bits, 4)} of ${number(average, 4)}`],
    ["expected error", share(error), String(error)],
    ...choices.map((width, i) => [`all at ${width} bits`, share(uniform[i]), String(uniform[i])]),
    [what, counts.map((count, i) => (count ? `${count} at ${choices[i]}` : null)).filter(Boolean).join(", "), `${units} ${what}`],
  ];
}

function byStep({ rows, steps, sigma }) {
  return {
    rows: rows.map(({ site, layer }) => ({ label: layer, group: site })),
    columns: steps.map((step, i) => ({ label: step, sub: sigma ? number(sigma[i], 2) : "" })),
    values: rows.map(({ bits }) => bits.map((width) => (width > 0 ? width : null))),
    cells: (row, column) => ({ ...rows[row], place: column, step: steps[column] }),
  };
}

function describe(cell, { choices, per }) {
  if (!cell) return "no such layer";
  const bits = per === "step" ? cell.bits[cell.place] : cell.bits;
  const each = per === "step" ? cell.choice_error[cell.place] : cell.choice_error;
  const step = per === "step" ? ` · step ${cell.step}` : "";
  const costs = choices.map((width, i) => `${width}: ${number(each[i], 3)}`).join(", ");
  return `${bits} bits · ${cell.site} ${cell.layer}${step} · error by bits ${costs}`;
}

function siteTable({ sites, choices }) {
  return table({
    caption: "Expected error by site",
    columns: ["site", "units", "bits", "error", ...choices.map((width) => `all at ${width}`)],
    rows: sites.map(({ site, units, bits, error, uniform }) => [site, units, bits, error, ...uniform]),
  });
}

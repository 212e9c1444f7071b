// Parts of the weights view: integers that differ, errors of linears, errors of blocks.
import { barChart, lineChart } from "../chart.js";
import { select, toolbar } from "../controls.js";
import { el, fill } from "../dom.js";
import { number, percent } from "../format.js";
import { heatmap } from "../heatmap.js";
import { colourBar } from "../legend.js";
import { drawing, part } from "../part.js";
import { scaleOf } from "../scale.js";
import { read, write } from "../state.js";
import { table, tableBelow } from "../table.js";
import { figures } from "../take.js";
import { byBlock } from "./plan_rows.js";

const asLayer = (row) => ({
  ...row, site: row.site, layer: row.block && row.stream ? `${row.block}.${row.stream}` : row.linear,
});

/** A map of linears: sites down, blocks across. */
function linearMap(root) {
  const legend = colourBar();
  const stage = el("div", {});
  const heat = drawing(heatmap, stage);
  fill(root, legend, stage);
  return {
    draw(list, valueOf, { label, unit = "", describe, ...told }) {
      const { rows, columns, values, cells } = byBlock(list.map(asLayer), valueOf);
      const scale = scaleOf(values, told);
      legend.set({ scale, label, unit, missing: values.some((row) => row.includes(null)) });
      const options = {
        rows, columns, values, scale, label: `${label} by linear and block`, axes: { rows: "linear", columns: "block" },
        describe: (row, column) => {
          const cell = cells(row, column);
          return cell ? `${cell.linear}: ${describe(cell)}` : "no such linear";
        },
      };
      heat.draw(options);
    },
    close: heat.close,
  };
}

/** Shares of integers that rounding changed. */
export function changesPart({ store }) {
  const numbers = figures();
  const [mapped, bars] = [el("div", {}), el("div", {})];
  const note = el("p", { class: "note" });
  const map = linearMap(mapped);
  let [shown, set] = [null, null];
  const other = select({
    label: "Beside", options: ["nearest"],
    onChange: (word) => {
      write({ other: word === "nearest" ? null : word }, { push: true });
      put();
    },
  });
  const below = tableBelow("Linears as table", () => table({
    caption: "Integers of linears", columns: ["linear", "weights", "differ (share)", "largest difference", "at the ends of the grid (share)"],
    rows: shown.rows.map((row) => [row.linear, row.weights, row.changed, row.changed === null ? null : row.largest, row.at_ends]),
  }));
  const made = part("What rounding changed", {
    store, endpoint: "weights/changes", draw, controls: toolbar("Compared", other),
    note: "Share of the integers that differ from those nearest to the weights on the same grid, or from another set on it.",
  });
  fill(made.body, el("p", { class: "note" }, "Reading the integers of every linear; the first time takes seconds."));

  function put() {
    const word = read().other;
    return made.ask({ set: set.set, other: word });
  }

  function draw(answer) {
    if (shown === null) fill(made.body, note, numbers, el("div", { class: "columns" }, mapped, bars), below);
    shown = answer;
    const known = answer.rows.some((row) => row.changed !== null);
    note.textContent = answer.note;
    note.hidden = !answer.note;
    const all = answer.blocks.filter((one) => one.changed !== null);
    const { changed, weights } = answer.total;
    numbers.set(known ? [["integers that differ", percent(changed, 4), String(changed)], ["of", number(weights)]] : []);
    map.draw(answer.rows, (row) => (known ? row.changed : row.at_ends), {
      label: known ? `differ from ${answer.other}` : "at the ends of the grid", unit: "share",
      describe: (row) => `${known ? `${percent(row.changed, 4)} differ, by ${row.largest} at most; ` : ""}${percent(row.at_ends, 3)} at the ends of the grid`,
    });
    bars.hidden = !known;
    if (known) drawBars(all);
    below.refresh();
  }

  function drawBars(all) {
    const options = {
      label: "Share of integers that differ, by block",
      bars: {
        left: all.map((_, i) => i - 0.4), right: all.map((_, i) => i + 0.4), value: all.map((one) => one.changed),
        names: all.map((one) => one.block || "outside of blocks"),
      },
      x: { label: "block, in order", domain: [-0.6, all.length - 0.4] },
      y: { label: "share that differs" },
    };
    chart.draw(options);
  }

  const chart = made.picture(barChart, bars);
  return {
    node: made.node,
    ask: (one, known) => {
      set = one;
      const names = ["nearest", ...known.map((each) => each.set).filter((name) => name !== one.set)];
      other.setOptions(names.map((name) => ({ value: name, label: name === "nearest" ? "rounding to nearest" : name })), read().other ?? "nearest");
      return put();
    },
    close: () => {
      made.close();
      map.close();
    },
  };
}

/** What is left of the error of rounding to nearest, linear by linear. */
export function errorsPart({ store }) {
  const numbers = figures();
  const mapped = el("div", {});
  const map = linearMap(mapped);
  let shown = null;
  const below = tableBelow("Linears as table", () => table({
    caption: "Linears", columns: ["linear", "bits", "groups", "outputs", "inputs", "error", "nearest rounding", "left"],
    rows: shown.rows.map((row) => [
      row.linear, row.bits, row.groups, row.outputs, row.inputs, row.linear_error, row.nearest_error, row.left,
    ]),
  }));
  const made = part("Linears of the set", {
    store, endpoint: "weights/linears", draw,
    note: "Where second moments were rounded on: what is left of the squared error that rounding to nearest leaves on them.",
  });

  function draw(answer) {
    const told = answer.rows.filter((row) => row.left !== null);
    shown = answer;
    if (told.length) {
      fill(made.body, numbers, mapped, below);
      const worst = told.reduce((a, b) => (b.left > a.left ? b : a));
      numbers.set([
        ["left of the error, mean of linears", percent(answer.left, 4), String(answer.left)],
        ["most", `${percent(worst.left, 4)} ${worst.linear}`],
      ]);
      map.draw(told, (row) => row.left, {
        label: "error left", unit: "ratio", describe: (row) => `${percent(row.left, 4)} left, ${number(row.linear_error, 5)} of ${number(row.nearest_error, 5)}`,
      });
    } else {
      fill(made.body, below);
    }
    below.refresh();
  }

  return {
    node: made.node,
    ask: ({ set }) => made.ask({ set }),
    close: () => {
      made.close();
      map.close();
    },
  };
}

/** Errors of blocks, and the losses on the way. */
export function blocksPart({ store }) {
  const [picture, losses] = [el("div", {}), el("div", {})];
  let [shown, block] = [null, null];
  const inputs = select({ label: "Inputs quantized", options: ["…"], onChange: (word) => { write({ inputs: word }); draw(shown); } });
  const which = select({ label: "Losses of", options: ["…"], onChange: (word) => { write({ block: word }); draw(shown); } });
  const below = el("div", {});
  const made = part("Errors of blocks", {
    store, endpoint: "weights/blocks", draw, controls: toolbar("Blocks", inputs, which),
    note: "Mean squared error of a block's output as a share of its power, by how weights were rounded.",
  });

  const errorsOf = (row, word) => (word && row.by_inputs[word]) || row.error;

  function draw(answer) {
    if (!answer) return;
    if (shown === null) fill(made.body, el("div", { class: "columns" }, picture, losses), below);
    shown = answer;
    const now = read();
    inputs.hidden = answer.inputs.length === 0;
    inputs.setOptions(answer.inputs.map((word) => ({ value: word, label: { float: "not at all", first: "as at first", learned: "as learned" }[word] ?? word })), now.inputs ?? answer.inputs.at(-1));
    const names = answer.losses.map((one) => one.block);
    block = names.includes(now.block) ? now.block : names[0];
    which.setOptions(names, block);
    const word = answer.inputs.includes(now.inputs) ? now.inputs : answer.inputs.at(-1);
    drawErrors(answer, word);
    drawLosses(answer);
    fill(below, table({
      caption: "Errors of blocks as shares of the output's power",
      columns: ["block", { label: "stream", text: true }, ...answer.methods, "output power", "iterations", "seconds"],
      rows: answer.rows.map((row) => [
        row.block, row.stream, ...answer.methods.map((name) => errorsOf(row, word)[name] / row.power), row.power, row.iterations, row.seconds,
      ]),
    }));
  }

  function drawErrors({ rows, methods }, word) {
    const x = rows.map((_, i) => i);
    const options = {
      label: "Errors of blocks by method",
      series: methods.map((name) => ({ name, x, y: rows.map((row) => errorsOf(row, word)[name] / row.power), points: true })),
      x: { label: "block and stream, in order", tell: (i) => `${rows[i].block} ${rows[i].stream}` },
      y: { label: "error over power", scale: "log" },
    };
    chart.draw(options);
  }

  function drawLosses({ losses: every }) {
    const one = every.find((each) => each.block === block);
    const options = {
      label: `Loss of ${block} by iteration`,
      series: [
        { name: "loss", x: one.iteration, y: one.loss }, { name: "rounding term", x: one.iteration, y: one.rounding_loss, dash: "6 3" },
      ],
      x: { label: `iteration of ${block}` },
      y: { label: "loss", scale: "log" },
    };
    curve.draw(options);
  }

  const chart = made.picture(lineChart, picture);
  const curve = made.picture(lineChart, losses);
  return {
    node: made.node,
    ask: ({ set, reconstruction }) => {
      made.node.hidden = !reconstruction;
      return reconstruction ? made.ask({ set }).then(() => { made.node.hidden = false; }) : null;
    },
    close: made.close,
  };
}

// A linear by channel and by image: which are wide, and whether one alone makes the range.
import { barChart, lineChart } from "../chart.js";
import { select, toolbar } from "../controls.js";
import { el, fill } from "../dom.js";
import { number } from "../format.js";
import { part } from "../part.js";
import { read, write } from "../state.js";
import { table, tableBelow } from "../table.js";

const SHOWN = 20;

/** Channels of the step, widest first. */
export function channelsPart({ store }) {
  let shown = null;
  const picture = el("div", { class: "picture" });
  const told = el("p", { class: "note" });
  const asTable = tableBelow("Show as table", () => tableOfChannels(shown));
  const made = part("Channels, widest first", { store, endpoint: "channels", draw });
  fill(made.body, told, picture, asTable);

  function draw(answer) {
    shown = answer;
    const { channels, count, median, outliers } = answer;
    told.textContent = `The ${channels.length} widest of ${number(count)} channels at step ${answer.step}; the median range is `
      + `${number(median)}. Outliers, in the stronger colour: ${number(outliers)}.`;
    const options = {
      label: "Ranges of the widest channels",
      bars: { names: channels.map((one) => `channel ${one.channel}`), value: channels.map((one) => one.range) },
      x: { label: "rank", domain: [-0.6, channels.length - 0.4] },
      y: { label: "range" },
      marks: [{ y: median, label: "median", dash: "4 3" }],
      fillOf: (i) => (channels[i].is_outlier ? "var(--bars-strong)" : ""),
      tell: (i) => `channel ${channels[i].channel}: range ${number(channels[i].range, 6)}, `
        + `${number(channels[i].multiple, 4)} medians, ${number(channels[i].min, 6)} to ${number(channels[i].max, 6)}`,
    };
    chart.draw(options);
    asTable.refresh();
  }

  const chart = made.picture(barChart, picture);
  return {
    node: made.node,
    ask: ({ site, layer, step, source, batch }) => made.ask({ site, layer, step, source, batch, top: SHOWN }),
    close: made.close,
  };
}

function tableOfChannels({ channels }) {
  return table({
    caption: "Widest channels",
    columns: ["channel", "smallest", "largest", "range", "in medians", "shift", { label: "outlier", text: true }],
    rows: channels.map((one) => [
      one.channel, one.min, one.max, one.range, one.multiple, one.shift, one.is_outlier ? "yes" : "",
    ]),
  });
}

/** Images (and rows of classifier-free guidance, where a store has them) apart. */
export function imagesPart({ store, onStep }) {
  let shown = null;
  const which = select({
    label: "Show", options: ["absmax"], value: read().of ?? "absmax",
    onChange: (of) => {
      write({ of: of === "absmax" ? null : of });
      draw(shown);
    },
  });
  const picture = el("div", { class: "picture" });
  const asTable = tableBelow("Show as table", () => tableOfImages(shown, which.value));
  const made = part("Images apart", {
    store, endpoint: "images", controls: toolbar("What of them", which), draw,
    note: "One line a batch: where one lies far above the others, its image alone makes the range.",
  });
  fill(made.body, picture, asTable);

  function draw(answer) {
    shown = answer;
    const first = answer.images[0] ?? {};
    which.setOptions(Object.keys(first.values ?? {}), which.value);
    const options = {
      label: `${which.value} of each image over the steps`,
      series: answer.images.map((one) => ({ name: one.name, x: answer.steps, y: one.values[which.value], points: true })),
      x: { label: "step", tell: (i) => `step ${answer.steps[i]}` },
      y: { label: which.value },
      onPick: (index) => onStep(answer.steps[index]),
    };
    chart.draw(options);
    asTable.refresh();
  }

  const chart = made.picture(lineChart, picture);
  return {
    node: made.node,
    ask: ({ site, layer, source }, { batches = [] }) => (
      batches.length ? made.ask({ site, layer, source }) : made.lack("This source has statistics of all images together.")),
    close: made.close,
  };
}

function tableOfImages({ steps, images }, of) {
  return table({
    caption: `${of} by step`,
    columns: ["step", ...images.map((one) => one.name)],
    rows: steps.map((step, i) => [step, ...images.map((one) => one.values[of][i])]),
  });
}

// Groups of steps that share a clip range, cut by hand, beside the best ones.
import { lineChart } from "../chart.js";
import { button, checkbox, select, slider, toolbar } from "../controls.js";
import { cutStrip } from "../cuts.js";
import { el, fill } from "../dom.js";
import { number, percent } from "../format.js";
import { part } from "../part.js";
import { asNumber } from "../state.js";
import { table, tableBelow } from "../table.js";
import { figures, takeAway } from "../take.js";

/** The part: `start()` asks, `close()` ends it. */
export function groupsPart({ store, state, move, end }) {
  const numbers = figures();
  const picture = el("div", {});
  const take = takeAway("Command that writes a config of these groups");
  let shown = null;
  const site = select({
    label: "Site", options: [{ value: state().site ?? "", label: state().site ?? "…" }], value: state().site,
    onChange: (word) => ask(end({ site: word, layer: null })),
  });
  const layer = select({
    label: "Layer", options: [{ value: "", label: "all of the site" }], value: "",
    onChange: (word) => ask(end({ layer: word || null })),
  });
  const bits = slider({
    label: "Bits", min: 2, max: 16, value: asNumber(state().bits, 8, { least: 2, most: 16 }),
    onInput: (value) => ask(move({ bits: value })), onChange: (value) => ask(end({ bits: value })),
  });
  const affine = checkbox({
    label: "affine", value: state().symmetric === "false", onChange: (on) => ask(end({ symmetric: on ? "false" : null })),
  });
  const count = slider({
    label: "Best of so many groups", min: 1, max: 2, value: 1,
    onInput: (value) => ask(move({ count: value, cuts: null })),
    onChange: (value) => ask(end({ count: value, cuts: null })),
  });
  const best = button({ label: "Best of as many", onClick: () => ask(end({ cuts: null, count: shown.cuts.length + 1 })) });
  const enough = button({
    label: "Fewest within 5 %", title: "As taqstore analyze groups chooses them", onClick: () => ask(end({ cuts: null, count: null })),
  });
  const strip = cutStrip({
    onInput: (cuts) => ask(move({ cuts: cuts.join(",") || "static", count: null })),
    onChange: (cuts) => ask(end({ cuts: cuts.join(",") || "static", count: null })),
  });
  const below = tableBelow("Groups as table", () => table({
    caption: "Groups of steps",
    columns: ["group", "first step", "last step", "part of the error"],
    rows: shown.parts.map(({ first, last, error }, i) => [i + 1, first, last, error]),
  }));
  const made = part("Groups of steps that share a clip range", {
    store, endpoint: "plan/groups", draw,
    note: "Each group has the one range of least expected error over its steps; costs are shares of the mean square, "
      + "means over the layers.",
    controls: el(
      "div",
      {},
      toolbar("Of what", site, layer, bits, affine),
      toolbar("Groups", count, best, enough),
    ),
  });

  function ask(now = state()) {
    const { site: where, layer: which, bits: width, symmetric, cuts, count: number_, source } = now;
    return made.ask({ site: where, layer: which, bits: width, symmetric, cuts, count: cuts ? null : number_, source });
  }

  function draw(answer) {
    if (shown === null) fill(made.body, strip, numbers, picture, below, take);
    shown = answer;
    const sites = answer.sites ?? [answer.site];
    site.setOptions(sites, answer.site);
    layer.setOptions([{ value: "", label: "all of the site" }, ...answer.layers], answer.layer ?? "");
    if (document.activeElement !== bits.input) bits.set(answer.bits);
    count.setRange({ min: 1, max: answer.steps.length });
    if (document.activeElement !== count.input) count.set(answer.cuts.length + 1);
    const mine = strip.contains(document.activeElement) && String(strip.cuts()) !== String(answer.cuts);
    // An answer that comes late does not take an edge out of a hand.
    if (!mine) strip.set(answer);
    numbers.set(numbersOf(answer));
    drawCurve(answer);
    below.refresh();
    take.set(answer.config);
  }

  function drawCurve({ curve, cuts, error }) {
    const groups = cuts.length + 1;
    const options = {
      label: "Expected error against the number of groups",
      series: [
        { name: "best groups", x: curve.map((_, i) => i + 1), y: curve, points: true },
        { name: "these groups", x: [groups], y: [error], line: false },
      ],
      x: { label: "groups of steps" },
      y: { label: "expected error", scale: "log" },
      height: 200,
      onPick: (index) => ask(end({ cuts: null, count: index + 1 })),
    };
    chart.draw(options);
  }

  const chart = made.picture(lineChart, picture);
  return {
    node: made.node,
    start: () => ask(),
    close: made.close,
  };
}

function numbersOf({ cuts, error, best, curve, steps }) {
  const count = cuts.length + 1;
  const above = error / best.error - 1;
  const of = count === 1 ? "1 group" : `${count} groups`;
  return [
    [`these ${of}`, percent(error, 4), String(error)],
    [`best ${of}`, `${percent(best.error, 4)}${Number.isFinite(above) ? ` (these: +${number(100 * Math.max(0, above), 3)} %)` : ""}`, `begin at ${best.cuts.join(", ") || "the first step"}`],
    [`a range for each of ${steps.length} steps`, percent(curve.at(-1), 4), String(curve.at(-1))],
    ["one range for all", percent(curve[0], 4), String(curve[0])],
  ];
}

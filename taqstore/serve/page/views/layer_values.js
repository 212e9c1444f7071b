// The values of a linear at one step: histogram, bounds of every rule, and what a range costs.
import { line, path } from "../api.js";
import { barChart } from "../chart.js";
import { button, checkbox, commandBox, copyable, select, slider, toolbar } from "../controls.js";
import { el, fill, problem } from "../dom.js";
import { exact, number, percent } from "../format.js";
import { part } from "../part.js";
import { read, write } from "../state.js";
import { table } from "../table.js";

const POSITIONS = 400;

/**
 * The part. `onDocument(document)` is told what the server has, `onBounds({lower, upper}, {last})`
 * when a hand moves the bounds, `onRule(rule)` when one is taken from the table.
 */
export function valuesPart({ store, onDocument, onBounds, onRule }) {
  const view = new Values({ store, onDocument, onBounds, onRule });
  return {
    node: view.part.node,
    commands: view.commands,
    ask: (question, state) => view.ask(question, state),
    close: () => view.close(),
  };
}

class Values {
  constructor({ store, onDocument, onBounds, onRule }) {
    Object.assign(this, { onDocument, onBounds, onRule });
    this.chart = null;
    this.log = checkbox({ label: "log counts", value: read().counts !== "linear", onChange: (on) => this.look({ counts: on ? null : "linear" }) });
    this.across = select({
      label: "Values", value: read().values ?? "symlog",
      options: [
        { value: "symlog", label: "log on both sides of 0" },
        { value: "linear", label: "linear, all" },
        { value: "near", label: "linear, near the bounds" },
      ],
      onChange: (values) => this.look({ values: values === "symlog" ? null : values }),
    });
    this.part = part("Values and clip bounds", {
      store, endpoint: "layer", commands: false,
      note: "Lines are the clip bounds of every rule; the tinted parts would be clipped.",
      draw: (document) => this.draw(document),
    });
    this.commands = commandBox();
    this.where = path("stores", store ?? "", "price");
    this.makeFigures();
    this.line = line({ onBusy: (busy) => this.figures.classList.toggle("busy", busy) });
  }

  makeFigures() {
    const bound = (label, side) => slider({
      label, min: 0, max: POSITIONS, value: 0, show: (at) => number(this.boundAt(side, at), 4),
      onInput: () => this.moved(false), onChange: () => this.moved(true),
    });
    this.sliders = { lower: bound("Lower bound", "lower"), upper: bound("Upper bound", "upper") };
    this.figures = el("dl", { class: "figures", "aria-live": "polite" });
    this.trouble = el("div", {});
    this.picture = el("div", { class: "picture" });
    this.rules = el("div", {});
    fill(
      this.part.body,
      toolbar("How values are drawn", this.across, this.log),
      this.picture,
      toolbar("Clip bounds moved by hand", this.sliders.lower, this.sliders.upper, this.back()),
      this.figures,
      this.trouble,
      this.rules,
    );
  }

  back() {
    this.reset = button({ label: "Back to the rule", onClick: () => this.onBounds({ lower: null, upper: null }, { last: true }) });
    return this.reset;
  }

  look(words) {
    write(words);
    this.drawChart();
  }

  /** Ask for a step's histogram and rules, then for the price of the bounds in the state. */
  async ask(question, state) {
    this.question = question;
    this.state = state;
    const { site, layer, step, bits, symmetric, percentile, clip } = question;
    await this.part.ask({ site, layer, step, bits, symmetric, clip, percentile });
    if (this.document) await this.price();
  }

  draw(document) {
    this.document = document;
    this.onDocument(document);
    this.drawChart();
    this.drawRules();
  }

  get isOwn() {
    return this.state.upper !== undefined && this.state.upper !== null && this.state.upper !== "";
  }

  async price() {
    const { site, layer, step } = this.document;
    const { bits, symmetric, clip, percentile } = this.question;
    const { lower, upper } = this.state;
    const which = this.isOwn ? { lower, upper } : { clip, percentile };
    try {
      const price = await this.line.ask(this.where, { site, layer, step, bits, symmetric, ...which });
      if (price === undefined) return;
      fill(this.trouble);
      this.shown = price;
      this.showPrice();
    } catch (error) {
      fill(this.trouble, problem(error));
    }
  }

  showPrice() {
    const { shown } = this;
    const items = [
      ["SQNR", `${number(shown.sqnr, 4)} dB`, shown.sqnr],
      ["Expected squared error", number(shown.error, 4), shown.error],
      ["Clip loss", number(shown.clip_loss, 4), shown.clip_loss],
      ["Clipped share", percent(shown.clipped_share), shown.clipped_share],
      ["Clip bounds", `${number(shown.lower)} to ${number(shown.upper)}`, [shown.lower, shown.upper].map(exact).join(" to ")],
      ["Step size", number(shown.step_size), shown.step_size],
      ["Zero point", number(shown.zero_point), shown.zero_point],
    ].filter(([, , value]) => value !== undefined);
    fill(this.figures, items.map(([name, text, all]) => (
      el("div", {}, el("dt", {}, name), el("dd", {}, copyable(text, exact(all)))))));
    this.reset.disabled = !this.isOwn;
    this.placeSliders();
    this.drawChart();
    this.commands.set(shown);
  }

  // Sliders move by logarithms between a thousandth of the extreme and the extreme itself.
  boundAt(side, at) {
    const [least, most] = this.document?.extrema ?? [-1, 1];
    const size = Math.max(Math.abs(least), Math.abs(most)) || 1;
    const value = size * 10 ** (-3 * (1 - at / POSITIONS));
    return side === "lower" ? -value : value;
  }

  positionOf(value) {
    const [least, most] = this.document.extrema;
    const size = Math.max(Math.abs(least), Math.abs(most)) || 1;
    const share = Math.log10(Math.max(Math.abs(value), size * 1e-3) / size) / 3 + 1;
    return Math.round(Math.min(1, Math.max(0, share)) * POSITIONS);
  }

  placeSliders() {
    const symmetric = this.question.symmetric !== "false";
    this.sliders.lower.hidden = symmetric;
    for (const side of ["lower", "upper"]) {
      const node = this.sliders[side];
      if (document.activeElement !== node.input) node.set(this.positionOf(this.shown[side]));
    }
  }

  moved(last) {
    const symmetric = this.question.symmetric !== "false";
    const upper = Number(this.boundAt("upper", this.sliders.upper.value).toPrecision(5));
    const low = Number(this.boundAt("lower", this.sliders.lower.value).toPrecision(5));
    this.onBounds({ lower: symmetric ? -upper : low, upper }, { last });
  }

  drawChart() {
    if (!this.document) return;
    const { histogram, extrema, rules } = this.document;
    const mode = this.across.value;
    const bound = this.shown ? Math.max(Math.abs(this.shown.lower), Math.abs(this.shown.upper)) : 0;
    const ends = mode === "near" && bound
      ? [Math.max(extrema[0], -1.5 * bound), Math.min(extrema[1], 1.5 * bound)] : extrema;
    const size = Math.max(Math.abs(extrema[0]), Math.abs(extrema[1])) || 1;
    const domain = padded(ends);
    const options = {
      label: `Histogram of ${this.document.site} ${this.document.layer} at step ${this.document.step}`,
      bars: { left: histogram.left, right: histogram.right, value: histogram.count },
      x: { label: "value", domain, scale: mode === "symlog" ? "symlog" : "linear", linear: size / 1000 },
      y: { label: this.log.value ? "count, log scale" : "count", scale: this.log.value ? "log" : "linear" },
      marks: marksOf(rules, this.shown, this.isOwn),
      bands: this.shown
        ? [{ from: domain[0], to: this.shown.lower, kind: "out" }, { from: this.shown.upper, to: domain[1], kind: "out" }]
          .filter(({ from, to }) => from < to)
        : [],
    };
    if (this.chart) this.chart.update(options);
    else this.chart = barChart(this.picture, options);
  }

  drawRules() {
    const { rules } = this.document;
    const current = this.question.clip ?? "absmax";
    fill(this.rules, table({
      caption: `Every rule at ${this.question.bits ?? 8} bits`,
      columns: [
        "rule", "lower", "upper", "SQNR, dB", "squared error", "clipped share",
        { label: "the range is", text: true },
      ],
      rows: rules.map((row) => [row.rule, row.lower, row.upper, row.sqnr, row.error, row.clipped_share, row.label]),
      onRow: (index) => button({ label: "Use", "aria-label": `Use ${rules[index].rule}`, onClick: () => this.onRule(rules[index].rule) }),
      current: rules.findIndex((row) => row.rule === current),
    }));
  }

  close() {
    this.part.close();
    this.line.close();
    this.chart?.destroy();
  }
}

function padded([least, most]) {
  const margin = (most - least) * 0.02 || 1;
  return [least - margin, most + margin];
}

// Rules that choose the same bound share a line and a label; a lower bound that mirrors the upper
// one needs no label of its own.
function marksOf(rules, shown, isOwn) {
  const places = new Map();
  for (const { rule, lower, upper } of rules) {
    for (const x of [lower, upper]) {
      if (typeof x !== "number") continue;
      const key = x.toPrecision(4);
      if (!places.has(key)) places.set(key, { x, names: [], mirrored: x === lower && lower === -upper });
      if (!places.get(key).names.includes(rule)) places.get(key).names.push(rule);
    }
  }
  const marks = [...places.values()].map(({ x, names, mirrored }) => ({
    x,
    label: mirrored ? "" : shortened(names),
    title: `${names.join(", ")}: ${number(x, 6)}`,
    dash: "4 3",
  }));
  if (!shown) return marks;
  const own = [shown.lower, shown.upper].map((x) => ({ x, label: isOwn ? "yours" : "", colour: "var(--accent)" }));
  return [...marks, ...own];
}

function shortened(names) {
  return names.length > 2 ? `${names[0]} +${names.length - 1}` : names.join(", ");
}

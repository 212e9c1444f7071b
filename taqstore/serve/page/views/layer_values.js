// The values of a linear at one step: histogram, bounds of every rule, and what a range costs.
import { line, path } from "../api.js";
import { barChart } from "../chart.js";
import { button, checkbox, commandBox, copyable, select, slider, toolbar } from "../controls.js";
import { el, fill, problem } from "../dom.js";
import { exact, number, percent } from "../format.js";
import { part } from "../part.js";
import { read, write } from "../state.js";
import { table } from "../table.js";
import { clippedParts, marksOf, padded } from "./layer_marks.js";

const POSITIONS = 400;

/** What a range costs: its name, its word in a document, how it is written. */
const FIGURES = [
  ["SQNR", "sqnr", (x) => `${number(x, 4)} dB`],
  ["Expected squared error", "error", (x) => number(x)],
  ["Clip loss", "clip_loss", (x) => number(x)],
  ["Clipped share", "clipped_share", (x) => percent(x)],
  ["Lower bound", "lower", (x) => number(x)],
  ["Upper bound", "upper", (x) => number(x)],
  ["Step size", "step_size", (x) => number(x)],
  ["Zero point", "zero_point", (x) => number(x)],
];

/**
 * The part. `onDocument(document)` is told what the server has, `onBounds({lower, upper}, {last})`
 * when a hand moves the bounds, `onRule(rule)` when one is taken from the table.
 */
export function valuesPart({ store, onDocument, onBounds, onRule }) {
  const view = new Values({ store, onDocument, onBounds, onRule });
  return {
    node: view.part.node,
    commands: view.commands,
    ask: (question, state, options) => view.ask(question, state, options),
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
      store, endpoint: "layer", commands: null, main: true,
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
      label, min: 0, max: POSITIONS, value: 0, show: (at) => number(this.boundAt(side, at)),
      onInput: () => this.moved(false), onChange: () => this.moved(true),
    });
    this.sliders = { lower: bound("Lower bound", "lower"), upper: bound("Upper bound", "upper") };
    this.figures = el("dl", { class: "figures", "aria-live": "polite" });
    this.trouble = el("div", {});
    this.picture = el("div", { class: "picture" });
    this.rules = el("div", {});
    this.drawn = toolbar("How values are drawn", this.across, this.log);
    this.bounds = toolbar("Clip bounds moved by hand", this.sliders.lower, this.sliders.upper, this.back());
    fill(
      this.part.body,
      this.drawn,
      this.picture,
      this.bounds,
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

  /**
   * Ask for the numbers of a state. While a hand moves (`settled` false) what is known is drawn at
   * once, such as the histogram of another step, and the server is asked for the price alone.
   */
  async ask(question, state, { settled = true } = {}) {
    this.question = question;
    this.state = state;
    if (!settled && this.document) {
      this.step = Number(question.step ?? this.step);
      this.drawChart();
      this.rules.classList.add("busy");
      await this.price();
      return;
    }
    const { percentile } = state;
    await this.part.ask({ ...question, percentile });
    if (!this.document) return;
    const known = this.isOwn ? null : this.document.rules.find((row) => row.rule === (question.clip ?? "absmax"));
    // The rule's own price came with the others.
    if (known && this.document.step === Number(question.step ?? this.document.step)) {
      this.show({ ...known, cli: this.document.cli, python: this.document.python });
    } else await this.price();
  }

  draw(answer) {
    this.document = answer;
    this.step = answer.step;
    this.onDocument(answer);
    this.drawChart();
    this.drawRules();
  }

  get isOwn() {
    return Boolean(this.state.upper);
  }

  async price() {
    const { site, layer } = this.document;
    const { bits, symmetric, source, batch, clip, percentile, momentum } = this.question;
    const { lower, upper } = this.state;
    const which = this.isOwn ? { lower, upper } : { clip, percentile, momentum };
    try {
      const price = await this.line.ask(this.where, {
        site, layer, step: this.step, source, batch, bits, symmetric, ...which,
      });
      if (price === undefined) return;
      this.show(price);
    } catch (error) {
      fill(this.trouble, problem(error));
    }
  }

  show(price) {
    fill(this.trouble);
    this.shown = price;
    this.showPrice();
  }

  showPrice() {
    const { shown } = this;
    const items = FIGURES.filter(([, key]) => shown[key] !== undefined && shown[key] !== null);
    fill(this.figures, items.map(([name, key, text]) => {
      const values = [shown[key]].flat();
      const value = copyable(values.map(text).join(" / "), values.map(exact).join(" / "));
      return el("div", {}, el("dt", {}, name), el("dd", {}, value));
    }));
    this.reset.disabled = !this.isOwn;
    this.placeSliders();
    this.drawChart();
    this.commands.set(shown);
  }

  // Sliders move by logarithms between a thousandth of the extreme on their side and the extreme
  // itself; both sides are alike where integers are symmetric.
  sideOf(side) {
    const own = Math.abs(this.ends[side === "lower" ? 0 : 1]);
    return (!this.question || this.isSymmetric ? this.size : own) || this.size;
  }

  boundAt(side, at) {
    const shown = [this.shown?.[side]].flat()[0];
    // A slider has few places; where it stands for a bound that was told, it is that bound.
    if (typeof shown === "number" && at === this.placeOf(side, shown)) return shown;
    const value = this.sideOf(side) * 10 ** (-3 * (1 - at / POSITIONS));
    return side === "lower" ? -value : value;
  }

  placeOf(side, value) {
    const share = Math.abs([value].flat()[0]) / this.sideOf(side);
    return Math.round(Math.min(1, Math.max(0, Math.log10(Math.max(share, 1e-3)) / 3 + 1)) * POSITIONS);
  }

  placeSliders() {
    this.sliders.lower.hidden = this.isSymmetric;
    for (const side of ["lower", "upper"]) {
      const node = this.sliders[side];
      if (document.activeElement !== node.input) node.set(this.placeOf(side, this.shown[side]));
    }
  }

  moved(last) {
    const upper = Number(this.boundAt("upper", this.sliders.upper.value).toPrecision(5));
    const low = Number(this.boundAt("lower", this.sliders.lower.value).toPrecision(5));
    this.onBounds({ lower: this.isSymmetric ? -upper : low, upper }, { last });
  }

  drawChart() {
    if (!this.document) return;
    const { histogram, rules, steps } = this.document;
    // Without a histogram there is nothing to draw, and no price of a range.
    for (const node of [this.picture, this.drawn, this.bounds]) node.hidden = !histogram;
    if (!histogram) return;
    const counts = histogram.by_step?.[steps.indexOf(this.step)] ?? histogram.count;
    const domain = this.domain();
    const options = {
      label: `Histogram of ${this.document.site} ${this.document.layer} at step ${this.step}`,
      bars: { left: histogram.left, right: histogram.right, value: counts },
      x: { label: "value", domain, scale: this.across.value === "symlog" ? "symlog" : "linear", linear: this.linearWidth() },
      y: { label: this.log.value ? "count, log scale" : "count", scale: this.log.value ? "log" : "linear" },
      marks: marksOf(rules.filter((row) => this.isCurrent(row)), this.shown, this.isOwn),
      bands: clippedParts(this.shown, domain),
    };
    if (this.chart) this.chart.update(options);
    else this.chart = barChart(this.picture, options);
  }

  // While a hand moves bits or steps, bounds of rules that follow them are those of before.
  isCurrent({ by_bits: byBits }) {
    const { asked, step } = this.document;
    return this.step === step && (!byBits || asked.bits === Number(this.question.bits ?? asked.bits));
  }

  get ends() {
    return (this.document?.extrema ?? [-1, 1]).map((x) => [x].flat()[0]);
  }

  get size() {
    return Math.max(...this.ends.map(Math.abs)) || 1;
  }

  get isSymmetric() {
    return this.question.symmetric !== "false";
  }

  linearWidth() {
    return this.document.histogram.linear_width || this.size / 1000;
  }

  domain() {
    const [least, most] = this.ends;
    const bound = this.shown ? Math.max(...[this.shown.lower, this.shown.upper].flat().map(Math.abs)) : 0;
    if (this.across.value === "symlog") return padded([least, most], this.linearWidth() / 5);
    if (this.across.value !== "near" || !bound) return padded([least, most]);
    return padded([Math.max(least, -1.5 * bound), Math.min(most, 1.5 * bound)]);
  }

  drawRules() {
    const { rules, left_out: left = [] } = this.document;
    const current = this.question.clip ?? "absmax";
    this.rules.classList.remove("busy");
    fill(this.rules, table({
      caption: `Every rule at ${this.question.bits ?? 8} bits`,
      columns: [
        "rule", "lower", "upper", "SQNR, dB", "squared error", "clipped share",
        { label: "the range is", text: true },
      ],
      rows: rules.map((row) => [row.rule, row.lower, row.upper, row.sqnr, row.error, row.clipped_share, row.label]),
      onRow: (index) => button({ label: "Use", "aria-label": `Use ${rules[index].rule}`, onClick: () => this.onRule(rules[index].rule) }),
      current: rules.findIndex((row) => row.rule === current),
    }), notAsked(left));
  }

  close() {
    this.part.close();
    this.line.close();
    this.chart?.destroy();
  }
}

// Reasons are long, and of interest to those alone who miss a rule.
function notAsked(left) {
  if (left.length === 0) return null;
  const reasons = left.map(({ rule, why }) => el("li", {}, `${rule}: ${why}`));
  return el("details", {}, el("summary", {}, `Rules that this source cannot tell: ${left.length}`), el("ul", {}, reasons));
}

// One linear: its values at a step with bounds and prices, over the steps, by channel, by image.
import { select, slider, toolbar, button } from "../controls.js";
import { el, fill } from "../dom.js";
import { number } from "../format.js";
import { percentileSlider, ruleQuestion, rulesOf, ruleTakes } from "../rules.js";
import { asNumber, dragging, read } from "../state.js";
import { channelsPart, imagesPart } from "./layer_parts.js";
import { stepsPart } from "./layer_steps.js";
import { valuesPart } from "./layer_values.js";

/** Show the view; returns what cleans up. */
export async function show(root, state, context) {
  const view = new Layer(root, state, context);
  await view.ask();
  return () => view.close();
}

class Layer {
  constructor(root, state, context) {
    this.state = state;
    this.store = context.store;
    this.rules = [];
    this.hand = dragging();
    const told = {
      store: this.store,
      onStep: (step) => this.change({ step }),
      onBounds: (words, options) => this.bounds(words, options),
      onRule: (clip) => this.change({ clip, lower: null, upper: null }),
    };
    this.values = valuesPart({ ...told, onDocument: (document) => this.take(document) });
    const [steps, channels, images] = [stepsPart(told), channelsPart(told), imagesPart(told)];
    this.parts = [steps, channels, images];
    this.title = el("h1", {}, "Layer");
    fill(
      root,
      this.title,
      this.makeControls(),
      this.values.node,
      steps.node,
      el("div", { class: "columns" }, channels.node, images.node),
      this.values.commands,
    );
  }

  makeControls() {
    const { state } = this;
    const settled = (words) => this.change({ ...words, lower: null, upper: null });
    this.site = select({
      label: "Site", options: [state.site ?? "…"], value: state.site,
      onChange: (site) => this.change({ site, layer: null, lower: null, upper: null }),
    });
    this.layer = select({
      label: "Layer", options: [state.layer ?? "…"], value: state.layer,
      onChange: (layer) => this.change({ layer, lower: null, upper: null }),
    });
    this.step = slider({
      label: "Step", min: 0, max: 0, value: 0, show: (i) => this.stepText(i),
      onInput: (i) => this.drag({ step: this.steps[i] }), onChange: (i) => this.change({ step: this.steps[i] }),
    });
    this.step.classList.add("wide");
    this.bits = slider({
      label: "Bits", min: 2, max: 16, value: asNumber(state.bits, 8, { least: 2, most: 16 }),
      onInput: (bits) => this.drag({ bits }), onChange: (bits) => this.change({ bits }),
    });
    this.clip = select({
      label: "Clip rule", options: [state.clip ?? "absmax"], value: state.clip ?? "absmax", onChange: (clip) => settled({ clip }),
    });
    const own = { lower: null, upper: null };
    this.percentile = percentileSlider(state, {
      onInput: (words) => this.drag({ ...words, ...own }), onChange: settled,
    });
    this.symmetric = select({
      label: "Integers", options: [{ value: "true", label: "symmetric" }, { value: "false", label: "affine" }],
      value: state.symmetric ?? "true", onChange: (word) => settled({ symmetric: word === "false" ? "false" : null }),
    });
    const near = (by, label, title) => button({ label, title, "aria-label": title, onClick: () => this.neighbour(by) });
    const which = el("div", { class: "pair" }, near(-1, "‹", "Layer before"), near(1, "›", "Layer after"));
    return el(
      "div",
      { class: "sticky" },
      toolbar("Which linear and step", this.site, this.layer, which, this.step),
      toolbar("How it is quantized", this.bits, this.symmetric, this.clip, this.percentile),
    );
  }

  stepText(index) {
    const sigma = this.sigma?.[index];
    const step = this.steps?.[index] ?? this.state.step ?? "";
    return sigma === undefined ? String(step) : `${step}, sigma ${number(sigma, 3)}`;
  }

  neighbour(by) {
    const at = this.layers?.indexOf(this.layer.value) ?? -1;
    const layer = this.layers?.[at + by];
    if (at >= 0 && layer) this.change({ layer, lower: null, upper: null });
  }

  /** Something is settled: the address has it, and all parts are asked. */
  change(words) {
    this.hand.end(words);
    this.state = { ...read(), store: this.store };
    this.ask();
  }

  /** While a slider moves only the values at the step follow. */
  drag(words) {
    this.hand.move(words);
    this.state = { ...read(), store: this.store };
    this.showRule(this.state);
    this.values.ask(this.question(this.state), this.state, { settled: false });
  }

  /** Bounds moved by hand concern the values at the step alone. */
  bounds(words, { last }) {
    if (last) this.hand.end(words);
    else this.hand.move(words);
    this.state = { ...read(), store: this.store };
    this.values.ask(this.question(this.state), this.state, { settled: words.upper === null });
  }

  question(state) {
    const { site, layer, step, source, batch } = state;
    return { site, layer, step, source, batch, ...ruleQuestion(state, this.rules) };
  }

  async ask() {
    const { state } = this;
    this.showRule(state);
    await this.values.ask(this.question(state), state);
    // The rest is about the linear that the server chose where the address names none.
    const chosen = { ...this.question(this.state), site: this.site.value, layer: this.layer.value };
    for (const part of this.parts) {
      part.node.hidden = !this.document;
      if (this.document) part.ask({ ...chosen, step: this.document.step }, this.document);
    }
  }

  showRule(state) {
    this.percentile.hidden = !ruleTakes(state.clip, "percentile", this.rules);
  }

  take(answer) {
    this.document = answer;
    this.rules = answer.rules ?? this.rules;
    this.steps = answer.steps;
    this.sigma = answer.sigma;
    this.layers = answer.layers;
    this.site.setOptions(answer.sites, answer.site);
    this.layer.setOptions(answer.layers, answer.layer);
    this.clip.setOptions(rulesOf(this.rules), this.state.clip ?? "absmax");
    this.step.setRange({ min: 0, max: answer.steps.length - 1 });
    // A hand on the slider is not to be moved by an answer that comes late.
    if (document.activeElement !== this.step.input) this.step.set(answer.steps.indexOf(answer.step));
    fill(this.title, `${answer.site} ${answer.layer}`);
    this.showRule(this.state);
  }

  close() {
    this.values.close();
    for (const part of this.parts) part.close();
  }
}

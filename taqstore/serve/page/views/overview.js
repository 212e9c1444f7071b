// The overview: one quantity of every linear and step as a map.
import { line, path } from "../api.js";
import { commandBox, select, textField, toolbar } from "../controls.js";
import { el, fill, problem, section, showBusy } from "../dom.js";
import { measured, number } from "../format.js";
import { heatmap } from "../heatmap.js";
import { colourBar } from "../legend.js";
import { ruleControls } from "../rules.js";
import { scaleOf } from "../scale.js";
import { dragging, read, viewAddress, write } from "../state.js";
import { GROUPINGS, grouped, nameOf, optionsOf, worst } from "./rows.js";

const HINT = "Click or Enter opens a layer. Drag marks what to zoom to; Ctrl and the wheel, a pinch, "
  + "or + and − zoom; arrow keys move from cell to cell.";

/** Show the view; returns what cleans up. */
export async function show(root, state, context) {
  const view = new Overview(root, state, context);
  await view.ask();
  return () => view.close();
}

class Overview {
  constructor(root, state, context) {
    this.context = context;
    this.state = state;
    this.where = path("stores", context.store ?? "", "map");
    this.map = null;
    this.rows = [];
    this.hand = dragging();
    this.make(root);
    this.line = line({ onBusy: (busy) => showBusy(this.stage, busy, this.map !== null) });
  }

  make(root) {
    const { state } = this;
    this.quantity = select({
      label: "Quantity", options: [state.quantity ?? "absmax"], value: state.quantity ?? "absmax",
      onChange: (quantity) => this.change({ quantity }),
    });
    this.rules = ruleControls({ state, onInput: (words) => this.drag(words), onChange: (words) => this.change(words) });
    this.source = select({ label: "Source", options: [], onChange: (source) => this.change({ source }) });
    this.effect = select({
      label: "Quantized alone", options: [],
      onChange: (word) => this.change({ unit: word.split(" ")[0], format: word.split(" ")[1] }),
    });
    this.batch = textField({
      label: "Batches", value: state.batch ?? "", placeholder: "all, or 0:2",
      hint: "Observed batches from A up to B, by S: A:B:S",
    });
    this.batch.input.addEventListener("change", () => this.change({ batch: this.batch.value || null }));
    this.source.hidden = true;
    this.effect.hidden = true;
    this.makeShown();
    this.legend = colourBar();
    this.stage = el("div", {});
    this.trouble = el("div", {});
    this.hint = el("p", { class: "note", hidden: true }, HINT);
    this.left = el("p", { class: "note" });
    this.worst = section("Worst linears shown, each at its worst step");
    this.worst.node.hidden = true;
    this.commands = commandBox();
    fill(
      root,
      el("h1", {}, "Overview"),
      el(
        "div",
        { class: "toolbars" },
        toolbar("What the map shows", this.quantity, this.effect, ...this.rules.nodes, this.source, this.batch),
        toolbar("Which rows", this.by, this.site, this.stream, this.filter, this.colours),
      ),
      this.legend,
      this.trouble,
      this.stage,
      this.hint,
      this.left,
      this.worst.node,
      this.commands,
    );
  }

  makeShown() {
    const { state } = this;
    const shown = (label, word, options, otherwise) => select({
      label, options, value: state[word] ?? otherwise,
      onChange: (value) => this.redraw({ [word]: value === otherwise ? null : value, zoom: null }),
    });
    this.by = shown("Group by", "by", GROUPINGS, "site-stream");
    // With a layer the site is where the cursor is; alone it is which rows are wanted.
    this.site = select({
      label: "Site", options: [{ value: "", label: "all" }], value: "",
      onChange: (site) => this.redraw({ site: site || null, layer: null, step: null, zoom: null }),
    });
    this.stream = shown("Stream", "stream", [{ value: "", label: "all" }], "");
    this.filter = textField({
      label: "Layers", value: state.layers ?? "", placeholder: "all, or mm1 mm23",
      hint: "Words of which a layer's name has one",
      onInput: (layers) => this.redraw({ layers: layers || null, zoom: null }, { push: false }),
    });
    this.colours = shown("Colours", "colours", [
      { value: "", label: "as fits" }, { value: "linear", label: "linear" }, { value: "log", label: "log" },
    ], "");
  }

  /** Another question to the server. */
  change(words) {
    this.hand.end(words);
    this.state = { ...read(), store: this.context.store };
    this.ask();
  }

  /** The same while a slider moves. */
  drag(words) {
    this.hand.move(words);
    this.state = { ...read(), store: this.context.store };
    this.ask();
  }

  /** Other rows or colours of the same numbers. */
  redraw(words, { push = true } = {}) {
    write(words, { push });
    this.state = { ...read(), store: this.context.store };
    this.draw();
  }

  question() {
    const { quantity = "absmax", format, unit, source, batch } = this.state;
    return { quantity, ...this.rules.question(this.state), format, unit, source, batch };
  }

  async ask() {
    try {
      const answer = await this.line.ask(this.where, this.question());
      if (answer === undefined) return;
      fill(this.trouble);
      this.take(answer);
      this.draw();
    } catch (error) {
      // The map that was there stays: what was asked is refused, not what is shown.
      fill(this.trouble, problem(error));
      if (!this.document) this.rules.offer({ rules: [], takes: [] });
    }
  }

  take(answer) {
    this.document = answer;
    const all = { value: "", label: "all" };
    if (answer.quantities) {
      this.quantity.setOptions(answer.quantities.map((q) => ({
        value: q.quantity, label: q.label, title: q.doc,
      })), answer.quantity);
    }
    this.rules.offer(answer);
    this.offerSources(answer);
    this.site.setOptions([all, ...optionsOf(answer.rows, "site")], this.state.layer ? "" : this.state.site ?? "");
    this.stream.setOptions([all, ...optionsOf(answer.rows, "stream")], this.state.stream ?? "");
    this.commands.set(answer);
  }

  offerSources({ sources = [], source, formats = [], asked = {}, left_out: left = [] }) {
    this.source.hidden = sources.length < 2;
    this.source.setOptions(sources, source);
    this.effect.hidden = formats.length < 2;
    this.effect.setOptions(formats.map(effectOf), `${asked.unit} ${asked.format}`);
    this.left.textContent = left.length ? `Left out: ${left.join("; ")}` : "";
  }

  draw() {
    if (!this.document) return;
    const { document: shown, state } = this;
    this.rows = grouped(shown.rows, state);
    const values = this.rows.map((row) => row.values);
    const told = { kind: shown.scale, centre: shown.centre };
    const log = { linear: false, log: true }[state.colours] ?? shown.log;
    const scale = scaleOf(values, { ...told, log });
    const zero = scale.log && values.some((row) => row.includes(0)) ? "0 as dark as the least" : "";
    const worse = { high: "high is worse", low: "low is worse" }[shown.worse] ?? "";
    this.legend.set({
      scale, label: shown.label, unit: shown.unit, note: [worse, zero].filter(Boolean).join(", "),
      missing: values.some((row) => row.some((value) => value === null)),
    });
    this.drawMap(values, scale);
    this.drawWorst();
  }

  drawMap(values, scale) {
    const { document: shown, state } = this;
    const options = {
      rows: this.rows,
      columns: shown.steps.map((step, i) => ({ label: step, sub: shown.sigma ? number(shown.sigma[i], 2) : "" })),
      values,
      scale,
      label: `${shown.label} of ${this.rows.length} linears and ${shown.steps.length} steps`,
      axes: { rows: "layer", columns: "step", sub: shown.sigma ? "sigma" : "" },
      zoom: state.zoom,
      describe: (row, column) => this.describe(row, column),
      onPick: (row, column) => this.open(this.rows[row], shown.steps[column]),
      onZoom: (zoom) => {
        this.state.zoom = zoom;
        write({ zoom: zoom || null });
      },
    };
    if (this.map) this.map.update(options);
    else {
      this.map = heatmap(this.stage, options);
      this.hint.hidden = false;
    }
    const at = state.layer
      ? this.rows.findIndex((row) => row.layer === state.layer && row.site === state.site) : -1;
    const column = Math.max(0, shown.steps.indexOf(Number(state.step ?? shown.steps[0])));
    if (at >= 0) this.map.mark(at, column);
  }

  describe(row, column) {
    const { document: shown } = this;
    const { site, values } = this.rows[row];
    const sigma = shown.sigma ? `, sigma ${number(shown.sigma[column], 4)}` : "";
    const value = measured(values[column], shown.unit, 7);
    return `${shown.label} ${value} · ${site} ${nameOf(this.rows[row])} · ${stepName(shown.steps[column])}${sigma}`;
  }

  drawWorst() {
    const { document: shown } = this;
    const cells = worst(this.rows, shown.worse, 9);
    this.worst.node.hidden = cells.length === 0;
    fill(this.worst.body, el("ul", { class: "cells" }, cells.map(({ row, column }) => {
      const value = measured(this.rows[row].values[column], shown.unit);
      return el("li", {}, this.link(this.rows[row], shown.steps[column]), ` ${value}`);
    })));
  }

  link(row, step) {
    const text = `${row.site} ${nameOf(row)} ${stepName(step)}`;
    if (!isLinear(row)) return text;
    const to = viewAddress("layer", { ...this.state, site: row.site, layer: row.layer, step });
    return el("a", { href: to, onclick: (event) => this.follow(event, row, step) }, text);
  }

  follow(event, row, step) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.open(row, step);
  }

  open(row, step) {
    if (!isLinear(row)) return;
    const { site, layer } = row;
    // Back leads to the map with its cursor where it was.
    write({ site, layer, step });
    this.context.go({ view: "layer", site, layer, step: step === "all" ? null : step, zoom: null, by: null, stream: null, layers: null, colours: null });
  }

  close() {
    this.line.close();
    this.map?.destroy();
  }
}

// Effects of whole blocks, sites and steps are of no linear that could be opened.
function isLinear({ site, layer }) {
  return layer !== "all" && site !== "all linears";
}

// What has no steps has one column for all.
function stepName(step) {
  return step === "all" ? "all steps" : `step ${step}`;
}

function effectOf({ unit, format }) {
  return { value: `${unit} ${format}`, label: `${unit}, ${format}` };
}

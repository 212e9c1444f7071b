// Two stores, or two subsets of a store's images, side by side and as a ratio.
import { get, line, path } from "../api.js";
import { commandBox, select, textField, toolbar } from "../controls.js";
import { el, fill, problem, section } from "../dom.js";
import { measured, number } from "../format.js";
import { heatmap } from "../heatmap.js";
import { colourBar } from "../legend.js";
import { ruleControls } from "../rules.js";
import { scaleOf } from "../scale.js";
import { dragging, read, viewAddress, write } from "../state.js";
import { table } from "../table.js";
import { GROUPINGS, grouped, nameOf, optionsOf } from "./rows.js";

const SIDES = ["first", "second", "ratio"];
const MOST = 20;

/** Show the view; returns what cleans up. */
export async function show(root, state, context) {
  const view = new Compare(root, state, context);
  await view.start();
  return () => view.close();
}

class Compare {
  constructor(root, state, { store, stores, go }) {
    this.state = state;
    this.store = store;
    this.go = go;
    this.others = stores.map((one) => one.name).filter((name) => name !== store);
    this.hand = dragging();
    this.stop = new AbortController();
    this.maps = {};
    this.rows = [];
    this.make(root);
    this.line = line({ onBusy: (busy) => this.stage.classList.toggle("busy", busy) });
  }

  make(root) {
    const { state } = this;
    const settled = (words) => this.change(words);
    this.other = select({
      label: "Beside", value: state.other ?? "",
      options: [{ value: "", label: "other images of this store" }, ...this.others.map((name) => ({ value: name, label: name }))],
      onChange: (name) => settled({ other: name || "same", batch: null, other_batch: null }),
    });
    this.batch = this.batches("Images of the first", "batch");
    this.otherBatch = this.batches("Images of the second", "other_batch");
    this.quantity = select({ label: "Quantity", options: [state.quantity ?? "absmax"], value: state.quantity, onChange: (quantity) => settled({ quantity }) });
    this.rules = ruleControls({ state, onInput: (words) => this.drag(words), onChange: settled });
    this.by = this.shown("Group by", "by", GROUPINGS, "site-stream");
    this.site = select({
      label: "Site", options: [{ value: "", label: "all" }], onChange: (site) => this.redraw({ site: site || null, layer: null }),
    });
    this.stream = this.shown("Stream", "stream", [{ value: "", label: "all" }], "");
    this.trouble = el("div", {});
    this.sides = Object.fromEntries(SIDES.map((word) => [word, makeSide(word)]));
    this.stage = el("div", { class: "three" }, SIDES.map((word) => this.sides[word].node));
    this.left = el("p", { class: "note" });
    this.movers = section("Biggest movers");
    this.diff = el("details", { class: "table" }, el("summary", {}, "Distributions that moved most (taqstore diff)"));
    this.diff.addEventListener("toggle", () => this.askDiff());
    this.commands = commandBox();
    fill(
      root,
      el("h1", {}, "Compare"),
      toolbar("What is compared", this.other, this.batch, this.otherBatch, this.quantity, ...this.rules.nodes),
      toolbar("Which rows", this.by, this.site, this.stream),
      this.trouble,
      this.stage,
      this.left,
      this.movers.node,
      this.diff,
      this.commands,
    );
  }

  batches(label, word) {
    const node = textField({ label, value: this.state[word] ?? "", placeholder: "all, or 0:4", hint: "Observed batches from A up to B, by S: A:B:S" });
    node.input.addEventListener("change", () => this.change({ [word]: node.value || null }));
    return node;
  }

  shown(label, word, options, otherwise) {
    return select({
      label, options, value: this.state[word] ?? otherwise,
      onChange: (value) => this.redraw({ [word]: value === otherwise ? null : value }),
    });
  }

  /** Without an other store the halves of this one's images are compared. */
  async start() {
    const { state } = this;
    if (!state.other && !state.batch && !state.other_batch && this.others.length) {
      this.state = { ...this.state, other: this.others[0] };
      this.other.set(this.others[0]);
    }
    await this.halve();
    await this.ask();
  }

  async halve() {
    const { other, batch, other_batch: second } = this.state;
    if ((other && other !== "same") || batch || second) return;
    try {
      const told = await get(path("stores", this.store ?? "", "summary"), {}, { signal: this.stop.signal });
      const batches = told.batches ?? told.sources?.[0]?.batches ?? [];
      const count = Array.isArray(batches) ? batches.length : (batches.batch?.length ?? 0);
      const middle = Math.ceil(count / 2);
      if (count < 2) return;
      this.state = { ...this.state, batch: `0:${middle}`, other_batch: `${middle}:${count}` };
      this.batch.set(this.state.batch);
      this.otherBatch.set(this.state.other_batch);
    } catch {
      // What is compared can be named by hand.
    }
  }

  async change(words) {
    this.hand.end(words);
    this.state = { ...read(), store: this.store };
    this.batch.set(this.state.batch ?? "");
    this.otherBatch.set(this.state.other_batch ?? "");
    await this.halve();
    this.ask();
  }

  drag(words) {
    this.hand.move(words);
    this.state = { ...this.state, ...words };
    this.ask();
  }

  redraw(words) {
    write(words, { push: true });
    this.state = { ...this.state, ...words };
    this.draw();
  }

  question() {
    const { quantity = "absmax", other, batch, other_batch: second, source } = this.state;
    return {
      quantity, ...this.rules.question(this.state), other: other === "same" ? null : other, batch, other_batch: second, source,
    };
  }

  async ask() {
    try {
      const answer = await this.line.ask(path("stores", this.store ?? "", "compare"), this.question());
      if (answer === undefined) return;
      fill(this.trouble);
      this.take(answer);
    } catch (error) {
      fill(this.trouble, problem(error));
      if (!this.document) this.rules.offer({ rules: [], takes: [] });
    }
  }

  take(answer) {
    this.document = answer;
    const all = { value: "", label: "all" };
    this.quantity.setOptions(answer.quantities.map((q) => ({ value: q.quantity, label: q.label })), answer.quantity);
    this.rules.offer(answer);
    this.site.setOptions([all, ...optionsOf(answer.rows, "site")], this.state.layer ? "" : this.state.site ?? "");
    this.stream.setOptions([all, ...optionsOf(answer.rows, "stream")], this.state.stream ?? "");
    this.left.textContent = answer.left_out.length ? `Left out: ${answer.left_out.join("; ")}` : "";
    const isStores = answer.first.store !== answer.second.store;
    this.diff.hidden = !isStores;
    this.commands.set(answer);
    this.draw();
    if (this.diff.open) this.askDiff();
  }

  draw() {
    if (!this.document) return;
    const { document: shown } = this;
    // With a layer in the address the site is where another view's cursor was.
    this.rows = grouped(shown.rows, this.state);
    const { by } = shown;
    const told = { kind: shown.scale, centre: shown.centre, log: shown.log };
    const both = scaleOf(this.rows.flatMap((row) => [row.first, row.second]), told);
    const change = scaleOf(this.rows.map((row) => row[by]), { kind: "diverging", centre: 0, log: false });
    this.drawSide("first", nameOfSide(shown.first), "first", both, shown.label, shown.unit);
    this.drawSide("second", nameOfSide(shown.second), "second", both, shown.label, shown.unit);
    const what = by === "log2" ? "log2 of second over first" : "second less first";
    this.drawSide("ratio", by === "log2" ? "Ratio" : "Difference", by, change, what, by === "log2" ? "" : shown.unit);
    this.drawMovers(by);
  }

  drawSide(word, title, key, scale, label, unit) {
    const { document: shown } = this;
    const side = this.sides[word];
    side.heading.textContent = title;
    const values = this.rows.map((row) => row[key]);
    side.legend.set({ scale, label, unit, missing: values.some((row) => row.includes(null)) });
    const options = {
      rows: this.rows,
      columns: shown.steps.map((step, i) => ({ label: step, sub: number(shown.sigma?.[i], 2) })),
      values, scale, label: `${title}: ${label}`,
      axes: { rows: "layer", columns: "step", sub: shown.sigma ? "sigma" : "" },
      describe: (row, column) => this.describe(row, column),
      onHover: (row, column) => this.follow(word, row, column),
      onPick: (row, column) => this.open(word, this.rows[row], shown.steps[column]),
    };
    if (this.maps[word]) this.maps[word].update(options);
    else this.maps[word] = heatmap(side.stage, options);
  }

  /** One cursor for all three maps. */
  follow(from, row, column) {
    for (const word of SIDES) if (word !== from) this.maps[word]?.mark(row, column);
  }

  describe(row, column) {
    const { document: shown } = this;
    const one = this.rows[row];
    const told = [one.first[column], one.second[column]].map((value) => measured(value, shown.unit, 5));
    const change = one.ratio[column] === null ? `difference ${number(one.difference[column], 4)}` : `ratio ${number(one.ratio[column], 4)}`;
    return `${told[0]} and ${told[1]}, ${change} · ${one.site} ${nameOf(one)} · step ${shown.steps[column]}`;
  }

  open(word, { site, layer }, step) {
    const side = this.document[word] ?? this.document.first;
    this.go({ view: "layer", store: side.store, site, layer, step, quantity: null, other: null, other_batch: null, batch: side.batch });
  }

  drawMovers(by) {
    const { document: shown } = this;
    const cells = this.rows.flatMap((row, i) => row[by].map((value, j) => ({ row, i, j, value })))
      .filter(({ value }) => typeof value === "number" && value !== 0)
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, MOST);
    const last = by === "log2" ? "ratio" : "difference";
    fill(this.movers.body, cells.length === 0 ? el("p", { class: "note" }, "Nothing differs.") : table({
      caption: `${shown.label}: cells whose ${last} is furthest from ${by === "log2" ? "1" : "0"}`,
      columns: ["linear", { label: "step", text: true }, "first", "second", last],
      rows: cells.map(({ row, j }) => [
        el("a", { href: this.linkTo(row, shown.steps[j]) }, `${row.site} ${nameOf(row)}`), shown.steps[j], row.first[j], row.second[j], row[last][j],
      ]),
    }));
  }

  linkTo({ site, layer }, step) {
    return viewAddress("layer", { ...this.state, store: this.store, site, layer, step });
  }

  async askDiff() {
    if (!this.diff.open || !this.document) return;
    const { second } = this.document;
    const body = this.diff.querySelector(".inside") ?? this.diff.appendChild(el("div", { class: "inside" }));
    fill(body, el("p", { class: "note" }, "Comparing every histogram…"));
    try {
      const found = await get(path("stores", this.store, "diff", second.store), {}, { signal: this.stop.signal });
      const [first] = found.tables;
      const told = Object.keys(first.dtypes).filter((name) => /float64/.test(first.dtypes[name]));
      fill(
        body,
        table({
          caption: `First ${Math.min(MOST, first.rows.length)} of ${first.rows.length} rows, what moved most in front`,
          columns: ["layer", { label: "site", text: true }, { label: "step", text: true }, ...told],
          rows: first.rows.slice(0, MOST).map((row) => [row.layer, row.site, row.step ?? "–", ...told.map((name) => row[name])]),
        }),
        commandBox({ cli: found.cli, python: found.python }),
      );
    } catch (error) {
      if (error.name !== "AbortError") fill(body, problem(error));
    }
  }

  close() {
    this.stop.abort();
    this.line.close();
    for (const map of Object.values(this.maps)) map.destroy();
  }
}

function makeSide(word) {
  const heading = el("h2", {}, word);
  const legend = colourBar();
  const stage = el("div", {});
  return { node: el("section", { "aria-label": word }, heading, legend, stage), heading, legend, stage };
}

function nameOfSide({ store, batch }) {
  return batch ? `${store}, images ${batch}` : store;
}

// Latents and pictures of a run: a contact sheet by image and step, one of them large.
import { get, path, url } from "../api.js";
import { button, commandBox, select, slider, toolbar } from "../controls.js";
import { el, fill, live, problem, spoken } from "../dom.js";
import { number } from "../format.js";
import { asNumber, dragging, read } from "../state.js";
import { table } from "../table.js";

const PAGE = 8;
const SIDE = 64;

/** Show the view; returns what cleans up. */
export async function show(root, state, context) {
  const groups = context.stores.find((one) => one.name === context.store)?.groups;
  if (groups && !groups.some((group) => group === "latents" || group.startsWith("trajectories/"))) {
    const text = "The store holds no latents: taqstore generate keeps those of every step.";
    const line = `taqstore info ${shellWord(context)}`;
    fill(root, el("h1", {}, "Latents and pictures"), el("p", { class: "note" }, text), commandBox({ cli: line }));
    return () => {};
  }
  const view = new Latents(root, state, context);
  await view.ask();
  return () => view.close();
}

class Latents {
  constructor(root, state, { store }) {
    this.state = state;
    this.store = store;
    this.hand = dragging();
    this.stop = new AbortController();
    this.told = live();
    this.group = select({ label: "Latents of", options: ["…"], onChange: (group) => this.settle({ group, image: null, step: null, from: null }) });
    this.from = select({ label: "Images", options: ["…"], onChange: (from) => this.settle({ from, image: null }) });
    this.size = slider({
      label: "Cell size", min: 24, max: 160, step: 8, value: asNumber(state.cell, 64, { least: 24, most: 160 }),
      show: (x) => `${x} px`,
      onInput: (cell) => { this.move({ cell }); this.scale(); }, onChange: (cell) => { this.end({ cell }); this.scale(); },
    });
    this.large = el("div", { class: "large" });
    this.sheet = el("div", { class: "sheet" });
    this.about = el("details", { class: "table" }, el("summary", {}, "How channels become colours"));
    this.commands = commandBox();
    this.trouble = el("div", {});
    fill(
      root,
      el("h1", {}, "Latents and pictures"),
      toolbar("Which", this.group, this.from, this.size),
      this.trouble,
      this.large,
      this.sheet,
      this.told.node,
      this.about,
      this.commands,
    );
    this.large.addEventListener("keydown", (event) => this.key(event));
  }

  where(...names) {
    return path("stores", this.store ?? "", "latents", ...names);
  }

  move(words) {
    this.hand.move(words);
    this.state = { ...read(), store: this.store };
  }

  end(words) {
    this.hand.end(words);
    this.state = { ...read(), store: this.store };
  }

  settle(words) {
    this.end(words);
    return this.ask();
  }

  async ask() {
    try {
      const answer = await get(this.where(), { group: this.state.group }, { signal: this.stop.signal });
      fill(this.trouble);
      if (answer.groups.length === 0) this.lack();
      else this.take(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(this.trouble, problem(error));
      fill(this.sheet);
      fill(this.large);
      for (const node of [this.group, this.from, this.size, this.about]) node.hidden = !this.document;
    }
  }

  lack() {
    fill(this.trouble, el("p", { class: "note" }, "The store holds no latents: taqstore generate makes them."));
    for (const node of [this.group, this.from, this.size, this.about]) node.hidden = true;
    this.commands.set({});
  }

  take(answer) {
    this.document = answer;
    this.group.setOptions(answer.groups.map(({ group, label, images }) => ({ value: group, label: `${label} (${images})` })), answer.group);
    const pages = Math.ceil(answer.images.length / PAGE);
    this.from.hidden = pages < 2;
    this.from.setOptions(Array.from({ length: pages }, (_, i) => ({ value: String(i * PAGE), label: this.range(i * PAGE) })), this.state.from ?? "0");
    this.drawSheet();
    this.drawLarge();
    this.drawMap();
    this.commands.set(answer);
  }

  range(from) {
    const { images } = this.document;
    const last = Math.min(images.length, from + PAGE) - 1;
    return `${images[from].image} to ${images[last].image} of ${images.length}`;
  }

  page() {
    const from = asNumber(this.state.from, 0, { least: 0, most: this.document.images.length - 1 });
    return this.document.images.slice(from, from + PAGE);
  }

  drawSheet() {
    const { document: shown } = this;
    fill(this.sheet, this.page().map((one) => el(
      "figure",
      {},
      el("div", { class: "row", role: "group", "aria-label": `Image ${one.image} by step` }, this.cells(one)),
      el("figcaption", {}, captionOf(one)),
    )));
    if (shown.images.length === 0) fill(this.sheet, el("p", { class: "note" }, "No image is whole yet."));
    this.scale();
    this.press();
  }

  // All steps of an image are one picture, of which each cell shows a part.
  cells(one) {
    const { shown: steps, group, sigma, steps: every } = this.document;
    const address = url(this.where("strip"), { group, image: one.image, side: SIDE });
    const cells = steps.map((step, i) => {
      const level = sigma ? `, sigma ${number(sigma[every.indexOf(step)], 3)}` : "";
      const text = `image ${one.image}, step ${step}${level}`;
      const made = button({ label: "", title: text, "aria-label": text, onClick: () => this.pick(one.image, step) });
      made.dataset.cell = `${one.image} ${step}`;
      made.style.backgroundImage = `url("${address}")`;
      made.style.backgroundPosition = `${steps.length > 1 ? (100 * i) / (steps.length - 1) : 0}% 0`;
      made.style.backgroundSize = `${100 * steps.length}% 100%`;
      return made;
    });
    if (!one.picture) return cells;
    const source = url(this.where("picture"), { group, image: one.image, side: 128 });
    const picture = button({
      label: el("img", { src: source, alt: "", loading: "lazy" }), title: `picture of image ${one.image}`,
      "aria-label": `picture of image ${one.image}`, onClick: () => this.pick(one.image, "picture"),
    });
    picture.dataset.cell = `${one.image} picture`;
    return [picture, ...cells];
  }

  scale() {
    const { height, width } = this.document ?? { height: 1, width: 1 };
    const side = this.size.value;
    const [across, down] = width >= height ? [side, (side * height) / width] : [(side * width) / height, side];
    for (const cell of this.sheet.querySelectorAll("button")) {
      cell.style.width = `${Math.round(across)}px`;
      cell.style.height = `${Math.round(down)}px`;
    }
  }

  pick(image, step) {
    this.end({ image, step });
    this.drawLarge();
    this.press();
    this.large.scrollIntoView({ block: "nearest" });
  }

  press() {
    const { image, step } = this.chosen();
    for (const cell of this.sheet.querySelectorAll("button")) {
      cell.setAttribute("aria-pressed", String(cell.dataset.cell === `${image} ${step}`));
    }
  }

  /** What is shown large: of the address, else the first image's picture or last step. */
  chosen() {
    const { images, steps } = this.document;
    const one = images.find(({ image }) => String(image) === this.state.image) ?? this.page()[0];
    const last = one?.picture ? "picture" : steps.at(-1);
    const known = this.state.step !== undefined && (steps.includes(Number(this.state.step)) || (this.state.step === "picture" && one?.picture));
    return { one, image: one?.image, step: !known ? last : this.state.step === "picture" ? "picture" : Number(this.state.step) };
  }

  drawLarge() {
    const { document: shown } = this;
    const { one, image, step } = this.chosen();
    if (!one) return fill(this.large);
    const of = step === "picture" ? "the stored picture" : `step ${step}${shown.sigma ? `, sigma ${number(shown.sigma[shown.steps.indexOf(step)], 4)}` : ""}`;
    const text = `Image ${image}, ${of}`;
    const source = url(this.where("picture"), { group: shown.group, image, step: step === "picture" ? null : step });
    const order = [...shown.steps, ...(one.picture ? ["picture"] : [])];
    const at = order.indexOf(step);
    const along = slider({
      label: "Step", min: 0, max: order.length - 1, value: at, show: (i) => (order[i] === "picture" ? "picture" : `step ${order[i]}`),
      onInput: (i) => { this.move({ image, step: order[i] }); this.swap(order[i]); },
      onChange: (i) => { this.end({ image, step: order[i] }); this.swap(order[i]); this.press(); },
    });
    this.picture = el("img", { src: source, alt: text });
    this.heading = el("h2", {}, text);
    return fill(
      this.large,
      this.picture,
      el(
        "div",
        { class: "about" },
        this.heading,
        el("p", {}, one.prompt ?? "no prompt is stored"),
        el("p", { class: "note" }, [
          one.seed === undefined ? "" : `seed ${one.seed}`, one.cfg_weight === undefined ? "" : `guidance ${number(one.cfg_weight, 4)}`,
          `latents ${shown.height} × ${shown.width}, ${shown.channels} channels`,
        ].filter(Boolean).join(" · ")),
        along,
        spoken("Arrow keys on the slider walk through the steps."),
      ),
    );
  }

  // While the slider is held only the picture changes, not the slider.
  swap(step) {
    const { document: shown } = this;
    const { image } = this.chosen();
    const level = step === "picture" || !shown.sigma ? "" : `, sigma ${number(shown.sigma[shown.steps.indexOf(step)], 4)}`;
    const text = step === "picture" ? `Image ${image}, the stored picture` : `Image ${image}, step ${step}${level}`;
    this.picture.src = url(this.where("picture"), { group: shown.group, image, step: step === "picture" ? null : step });
    this.picture.alt = text;
    this.heading.textContent = text;
  }

  key(event) {
    if (event.target.tagName === "INPUT") return;
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by === undefined) return;
    const { images } = this.document;
    const next = images[images.indexOf(this.chosen().one) + by];
    if (next) this.pick(next.image, this.chosen().step);
  }

  drawMap() {
    const { map } = this.document;
    const rows = map.matrix.map((row, i) => [["red", "green", "blue"][map.matrix.length === 1 ? 0 : i], map.offset[i], ...row]);
    if (map.matrix.length === 1) rows[0][0] = "grey";
    const made = table({
      caption: "Of each colour: what stands for 0, and what each channel adds",
      columns: ["colour", "offset", ...map.matrix[0].map((_, i) => `channel ${i}`)],
      rows,
    });
    fill(this.about, el("summary", {}, "How channels become colours"), el("p", { class: "note" }, map.text), made);
  }

  close() {
    this.stop.abort();
  }
}

// As a shell takes it.
function shellWord({ stores, store }) {
  const { address } = stores.find((one) => one.name === store);
  return /^[\w@%+=:,./-]+$/.test(address) ? address : `'${address.replaceAll("'", `'"'"'`)}'`;
}

function captionOf({ image, prompt, seed }) {
  const about = [`image ${image}`, seed === undefined ? null : `seed ${seed}`].filter(Boolean).join(", ");
  return prompt ? `${about}: ${prompt}` : about;
}

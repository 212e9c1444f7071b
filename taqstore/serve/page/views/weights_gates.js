// Gates: variants beside the model as it is, step by step.
import { lineChart } from "../chart.js";
import { select, slider, toolbar } from "../controls.js";
import { el, fill } from "../dom.js";
import { number } from "../format.js";
import { hasVariants } from "../measured.js";
import { part } from "../part.js";
import { asNumber, dragging, read, write } from "../state.js";
import { table } from "../table.js";

const BOUNDS = [0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999];

/** Verdicts, and cosines by step. */
export function gatesPart({ store }) {
  const hand = dragging();
  const picture = el("div", {});
  const images = el("div", {});
  const verdicts = el("div", {});
  let shown = null;
  const wanted = asNumber(read().cosine, 0.95, { least: -1, most: 1 });
  const stops = [...new Set([...BOUNDS, wanted])].sort((a, b) => a - b);
  const bound = slider({
    label: "Least mean cosine", min: 0, max: stops.length - 1, value: stops.indexOf(wanted), show: (i) => String(stops[i]),
    onInput: (i) => ask(hand.move({ cosine: stops[i] === 0.95 ? null : stops[i] })),
    onChange: (i) => ask(hand.end({ cosine: stops[i] === 0.95 ? null : stops[i] })),
  });
  const of = select({
    label: "Of", options: [{ value: "", label: "latents" }, { value: "output", label: "guided outputs" }], value: read().of ?? "",
    onChange: (word) => { write({ of: word || null }); draw(shown); },
  });
  const variant = select({ label: "Images of", options: ["…"], onChange: (name) => { write({ variant: name }); draw(shown); } });
  const made = part("Gates", {
    store, endpoint: "gates", draw, needs: [hasVariants, "No variant was run beside the model as it is: taqstore gate does that."],
    controls: toolbar("Gate", bound, of, variant),
    note: "The same prompts and seeds by the model as it is and by each variant. One passes if the mean cosine of its latents "
      + "is at least the bound and no image has a step below it; intervals are 95 % bootstraps over seeds.",
  });

  function ask(now = read()) {
    return made.ask({ "min-cosine": now.cosine });
  }

  function draw(answer) {
    if (!answer) return;
    if (shown === null) fill(made.body, verdicts, picture, images);
    shown = answer;
    const text = (label) => ({ label, text: true });
    fill(verdicts, table({
      caption: "Variants",
      columns: ["variant", text("passes"), text("mean cosine (95 %)"), "least cosine", text("error of the final latent"), text("PSNR (dB)"), text("bifurcated"), "bits of a weight"],
      rows: answer.variants.map((one) => [
        one.variant, el("span", { class: one.passes ? "pass" : "pass no" }, one.passes ? "yes" : "no"), interval(one.cosine, 6), one.least,
        interval(one.final_error, 4), interval(one.psnr, 4), `${one.bifurcated} of ${one.seeds}`, one.average_bits,
      ]),
    }));
    drawSteps(answer);
    drawImages(answer);
  }

  function drawSteps({ variants, min_cosine: least }) {
    const prefix = of.value ? "output_" : "";
    // As distances from 1: all that is worth seeing is close to it.
    const far = (values) => values.map((value) => (value === null || value >= 1 ? null : Math.max(1 - value, 1e-7)));
    const sigma = variants[0].sigma;
    const options = {
      label: "Distance from the model as it is, by sigma",
      series: variants.flatMap(({ variant: name, by_step: by }) => [
        { name, x: sigma, y: far(by[`${prefix}mean`]), low: far(by[`${prefix}upper`]), high: far(by[`${prefix}lower`]), points: true },
      ]),
      x: { label: "sigma", reverse: true, tell: (i) => `step ${variants[0].steps[i]}, sigma ${number(sigma[i], 4)}` },
      y: { label: "1 − cosine", scale: "log" },
      marks: [{ y: 1 - least, label: `bound ${number(least, 5)}` }],
    };
    chart.draw(options);
  }

  function drawImages({ variants }) {
    variant.hidden = variants.length < 2;
    variant.setOptions(variants.map((one) => one.variant), read().variant ?? variants[0].variant);
    const one = variants.find((each) => each.variant === variant.value) ?? variants[0];
    fill(images, table({
      caption: `Images of ${one.variant}`,
      columns: ["image", { label: "prompt", text: true }, "seed", "mean cosine", "least cosine", "PSNR (dB)", { label: "first step below", text: true }],
      rows: one.images.map((row) => [
        row.image, row.prompt ?? "–", row.seed, row.mean, row.least, row.psnr,
        row.first_below < 0 ? "none" : one.steps[row.first_below],
      ]),
    }));
  }

  const chart = made.picture(lineChart, picture);
  return {
    node: made.node,
    body: made.body,
    ask: () => ask(),
    close: made.close,
  };
}

function interval({ mean: middle, lower, upper }, digits) {
  return `${number(middle, digits)} (${number(lower, digits)} to ${number(upper, digits)})`;
}

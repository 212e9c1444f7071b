// The controls of a clip rule: bits, rule, percentile and the rest, each shown where it applies.
import { checkbox, numberField, select, slider } from "./controls.js";
import { asNumber } from "./state.js";
import { number } from "./format.js";

/** Percentiles that a slider stops at: tails differ by factors, not by equal steps. */
const PERCENTILES = [50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.999, 100];

/** Options besides the rule's: words of the address, and of the server. */
const WORDS = ["bits", "clip", "percentile", "symmetric", "threshold", "spike"];
const STANDARD = { bits: 8, clip: "absmax", percentile: 99.9, symmetric: "true" };

/**
 * `{nodes, offer(document), question(state, quantities)}`: elements for a toolbar; the rules and
 * options that a document offers; the parameters that a state asks of the server. `onInput(words)`
 * while a slider is dragged, `onChange(words)` when something is settled.
 */
export function ruleControls({ state, onInput, onChange }) {
  const bits = slider({
    label: "Bits", min: 2, max: 16, value: asNumber(state.bits, 8, { least: 2, most: 16 }),
    onInput: (value) => onInput({ bits: value }),
    onChange: (value) => onChange({ bits: value }),
  });
  const clip = select({
    label: "Clip rule", options: [state.clip ?? "absmax"], value: state.clip ?? "absmax",
    onChange: (value) => onChange({ clip: value }),
  });
  const percentile = percentileSlider(state, { onInput, onChange });
  const affine = checkbox({
    label: "affine", hint: "A zero point that is fitted, in place of 0", value: state.symmetric === "false",
    onChange: (on) => onChange({ symmetric: on ? "false" : null }),
  });
  const threshold = numberField({
    label: "Outlier above", value: state.threshold ?? 2.5, min: 0, step: 0.5, hint: "Medians of the channels' ranges",
    onChange: (value) => onChange({ threshold: value || null }),
  });
  const spike = numberField({
    label: "Spike above", value: state.spike ?? 5, min: 0, step: 0.5, hint: "99th percentiles of the channels' ranges",
    onChange: (value) => onChange({ spike: value || null }),
  });
  const nodes = { bits, clip, percentile, symmetric: affine, threshold, spike };
  let rules = [];
  for (const node of Object.values(nodes)) node.hidden = true;

  function offer({ rules: list = rules, takes = WORDS }) {
    rules = list;
    if (list.length) {
      clip.setOptions(list.map((r) => ({ value: r.rule, label: r.rule, title: r.label })), clip.value);
    }
    for (const [word, node] of Object.entries(nodes)) node.hidden = !takes.includes(word);
    percentile.hidden = !takes.includes("percentile") || !takesPercentile(clip.value, rules);
  }

  return { nodes: Object.values(nodes), offer, question: (asked, known) => question(asked, known, rules), clip };
}

/** Whether a rule has a percentile; before the server told, those that are called so. */
export function takesPercentile(rule, rules) {
  const row = rules.find((one) => one.rule === rule);
  return row ? row.options.includes("percentile") : ["percentile", "mean_percentile"].includes(rule);
}

/** A slider over percentiles. */
export function percentileSlider(state, { onInput, onChange }) {
  const wanted = asNumber(state.percentile, 99.9, { least: 50, most: 100 });
  const stops = [...new Set([...PERCENTILES, wanted])].sort((a, b) => a - b);
  return slider({
    label: "Percentile", min: 0, max: stops.length - 1, value: stops.indexOf(wanted),
    show: (i) => number(stops[i], 6),
    onInput: (i) => onInput({ percentile: stops[i] }),
    onChange: (i) => onChange({ percentile: stops[i] }),
  });
}

// The server refuses what does not apply, so only what does is asked for.
function question(state, quantities, rules) {
  const quantity = state.quantity ?? "absmax";
  const takes = quantities?.find((one) => one.quantity === quantity)?.takes ?? WORDS;
  const words = { quantity };
  for (const word of WORDS) {
    const isStandard = String(state[word] ?? "") === String(STANDARD[word]);
    if (takes.includes(word) && state[word] && !isStandard) words[word] = state[word];
  }
  if (words.percentile && !takesPercentile(words.clip, rules)) delete words.percentile;
  return words;
}

// The controls of a clip rule: bits, rule, percentile and the rest, each shown where it applies.
import { checkbox, numberField, select, slider } from "./controls.js";
import { asNumber } from "./state.js";
import { number } from "./format.js";

/** Percentiles that a slider stops at: tails differ by factors, not by equal steps. */
const PERCENTILES = [50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.999, 100];

/** Options besides the rule's: words of the address, and of the server. */
const WORDS = ["bits", "clip", "percentile", "momentum", "symmetric", "threshold", "spike"];
const RULE_WORDS = WORDS.slice(0, 5);
/** What they are where they are not said: the same question then has the same address. */
const STANDARD = { bits: "8", clip: "absmax", percentile: "99.9", symmetric: "true" };

/**
 * `{nodes, offer(answer), question(state)}`: elements for a toolbar; what an answer of the server
 * offers; the parameters that a state asks of it. `onInput(words)` while a slider is dragged,
 * `onChange(words)` when something is settled.
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
  const momentum = numberField({
    label: "Momentum", value: state.momentum ?? 0.99, min: 0, max: 1, step: 0.01, hint: "Weight of what came before",
    onChange: (value) => onChange({ momentum: value || null }),
  });
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
  const nodes = { bits, clip, percentile, momentum, symmetric: affine, threshold, spike };
  let rules = [];
  for (const node of Object.values(nodes)) node.hidden = true;

  function offer({ rules: list = rules, takes = [] }) {
    rules = list;
    if (list.length) clip.setOptions(rulesOf(list), clip.value);
    for (const [word, node] of Object.entries(nodes)) {
      const ofRule = word === "percentile" || word === "momentum";
      node.hidden = !takes.includes(word) || (ofRule && !ruleTakes(clip.value, word, rules));
    }
  }

  return { nodes: Object.values(nodes), offer, question: (asked) => ruleQuestion(asked, rules, WORDS) };
}

/** Rules as options of a menu. */
export function rulesOf(rules) {
  return rules.map(({ rule, label }) => ({ value: rule, label: rule, title: label }));
}

/** Whether a rule takes an option; before the server told which do, by the rule's name. */
export function ruleTakes(rule, option, rules) {
  const row = rules.find((one) => one.rule === rule);
  if (row) return row.options.includes(option);
  return option === "percentile" ? /percentile/.test(rule ?? "") : rule === "ema";
}

/** What of a state is to be asked: the server refuses what a rule does not take. */
export function ruleQuestion(state, rules, words = RULE_WORDS) {
  const asked = {};
  for (const word of words) {
    const given = state[word];
    if (given === undefined || given === null || String(given) === STANDARD[word]) continue;
    const ofRule = word === "percentile" || word === "momentum";
    if (!ofRule || ruleTakes(state.clip, word, rules)) asked[word] = given;
  }
  return asked;
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

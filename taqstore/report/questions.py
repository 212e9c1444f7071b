"""The three questions: is there asymmetry, is there drift, are there outliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from taqstore.report.costs import layer_errors
from taqstore.report.findings import TOP_CHANNELS, Findings, Plan
from taqstore.report.page import (
    NO,
    UNKNOWN,
    YES,
    Number,
    Section,
    Table,
    Threshold,
    Verdict,
    judge,
    missing_note,
    number,
    percent,
)

ASYMMETRY = Threshold(
    0.25,
    "the midpoint of its range lies at least 25 % of the range away from zero",
    "a symmetric quantizer then leaves a third of its levels unused (0.58 bit)",
)
DRIFT = Threshold(
    2.0,
    "its clip bound at the widest step is at least 2 times that at the narrowest",
    "one bound for all steps then costs the narrowest step a whole bit",
)
OUTLIERS = Threshold(
    2.5,
    "the 99th percentile of its channel ranges is at least 2.5 times their median",
    "2.5 medians is the source scripts' rule for an outlier channel",
)
STABLE = Threshold(
    0.5,
    "mean Jaccard index of at least 0.5",
    "most outlier channels of one step are then outlier channels of another",
)


def asymmetry(findings: Findings) -> Section:
    """Whether values lie to one side of zero."""
    negative = _negative(findings)
    ranges = findings.table("ranges", "step", "layer")
    layers = pd.DataFrame()
    if not ranges.empty:
        layers = _by_linear(_midpoints(ranges), {"midpoint": "mean", "unused": "mean"})
        layers["negative"] = layers["linear"].map(negative)
        layers = layers.merge(_shift_gain(findings), on="linear", how="left")
    columns = (
        ("midpoint from zero, share of range", "midpoint", percent),
        ("levels a symmetric quantizer leaves unused", "unused", percent),
        ("values below zero", "negative", percent),
        ("clip bound saved by a channel shift", "gain", percent),
    )
    verdict = _judged(layers, "midpoint", ASYMMETRY)
    return Section(
        "asymmetry",
        "Is there asymmetry?",
        _sentence(verdict, "lie to one side of zero", "lies to one side of zero"),
        verdict,
        _rule(ASYMMETRY),
        _medians(layers, columns),
        _site_tables(layers, "midpoint", ASYMMETRY, columns),
        command="taqstore analyze shifts STORE",
        focus=_focus(layers, "midpoint"),
        notes=_reasons(findings, "ranges", "shifts")
        + (() if len(negative) else ("The share of negative values needs histograms.",)),
    )


def _negative(findings: Findings) -> pd.Series[float]:
    """Share of values below zero of every linear; empty if there are no histograms."""
    layers = findings.table("diagnostics", "layer")
    if layers.empty:
        return pd.Series(dtype=float)
    share: pd.Series[float] = layers.set_index("linear")["negative_fraction_all"]
    return share


def _midpoints(ranges: pd.DataFrame) -> pd.DataFrame:
    """Distance of the midpoint from zero over the range, and ``1 - range / (2 absmax)``."""
    lower, upper = ranges["lower"], ranges["upper"]
    width = (upper - lower).where(upper > lower)
    absmax = np.maximum(-lower, upper)
    midpoint = (lower + upper).abs() / 2 / width
    return ranges.assign(midpoint=midpoint, unused=1 - width / (2 * absmax))


def _shift_gain(findings: Findings) -> pd.DataFrame:
    """Share of the clip bound that a channel shift saves, mean over steps."""
    shifts = findings.table("shifts", "step", "layer")
    if shifts.empty:
        return pd.DataFrame({"linear": [], "gain": []})
    alpha = shifts["alpha"].where(shifts["alpha"] > 0)
    table = shifts.assign(gain=1 - shifts["shifted_alpha"] / alpha)
    return _by_linear(table, {"gain": "mean"})[["linear", "gain"]]


def drift(findings: Findings, plan: Plan) -> Section:
    """Whether ranges move over the steps."""
    layers = findings.table("temporal", "layer")
    if not layers.empty:
        layers = layers.merge(_correlation(findings), on="linear", how="left")
        layers["extra"] = layers["linear"].map(_static_cost(findings, plan))
    cost = f"A{plan.bits[-1]} error added by one bound for all steps"
    columns = (
        ("widest step over narrowest", "variability_ratio", _times),
        ("correlation of absmax with σ", "correlation", number),
        (cost, "extra", _decibels),
    )
    verdict = _judged(layers, "variability_ratio", DRIFT)
    return Section(
        "drift",
        "Do ranges drift over the steps?",
        _sentence(verdict, "change their range at least twofold", "changes its range twofold"),
        verdict,
        _rule(DRIFT),
        _medians(layers, columns),
        _site_tables(layers, "variability_ratio", DRIFT, columns),
        command="taqstore analyze temporal STORE",
        focus=_focus(layers, "variability_ratio"),
        notes=_reasons(findings, "temporal"),
    )


def _static_cost(findings: Findings, plan: Plan) -> pd.Series[float]:
    """Error in dB that one clip bound for all steps adds, both of least error at that."""
    static, own = (layer_errors(findings, plan.bits[-1], "mse", cuts) for cuts in ("static", None))
    ratio = static.where(static > 0) / own.where(own > 0)
    return 10.0 * ratio.map(np.log10)


def _correlation(findings: Findings) -> pd.DataFrame:
    table = findings.table("temporal", "layer", "quantity")
    return table.loc[table["quantity"] == "absmax", ["linear", "correlation"]]


def outliers(findings: Findings) -> Section:
    """Whether a few channels are much wider than the others, and always the same ones."""
    steps = findings.table("outliers", "step", "layer")
    layers = pd.DataFrame()
    if not steps.empty:
        means = {name: "mean" for name in ("tail_ratio", "batch_jaccard") if name in steps}
        layers = _by_linear(steps, {**means, "spike_count": "max"})
        fixed = findings.table("outliers", "layer")[["linear", "step_jaccard"]]
        layers = layers.merge(fixed, on="linear", how="left")
    columns = (
        ("99th percentile of channel ranges over median", "tail_ratio", _times),
        ("spikes: channels beyond 5 × the 99th percentile", "spike_count", number),
        ("stability over steps (Jaccard)", "step_jaccard", number),
        ("stability over batches (Jaccard)", "batch_jaccard", number),
    )
    verdict = _judged(layers, "tail_ratio", OUTLIERS)
    top = _widest_channels(findings)
    return Section(
        "outliers",
        "Are there outlier channels?",
        _sentence(verdict, "have outlier channels", "has outlier channels") + _stability(layers),
        verdict,
        _rule(OUTLIERS) + f" The set is called stable from a {STABLE.text}: {STABLE.reason}.",
        _medians(layers, columns),
        (*_site_tables(layers, "tail_ratio", OUTLIERS, columns), *_channel_table(top)),
        command="taqstore analyze outliers STORE",
        focus="" if top.empty else str(top["linear"].iloc[0]),
        notes=_reasons(findings, "outliers"),
    )


def _stability(layers: pd.DataFrame) -> str:
    if layers.empty or layers["step_jaccard"].isna().all():
        return ""
    stable = judge(layers["step_jaccard"], STABLE)
    if stable.word == YES:
        return " They are mostly the same at every step: a fixed list of channels serves."
    return " They change from step to step: a fixed list of channels misses some."


def _channel_table(channels: pd.DataFrame) -> tuple[Table, ...]:
    if channels.empty:
        return ()
    columns = ("linear", "channel", "range", "times", "multiplier")
    rows = tuple(
        (str(linear), str(channel), number(width), _times(times), number(multiplier))
        for linear, channel, width, times, multiplier in zip(
            *(channels[name].tolist() for name in columns), strict=True
        )
    )
    header = ("layer", "channel", "range", "of the median range", "multiplier")
    return (Table("Widest channels for their layer, at the middle step", header, rows),)


def _widest_channels(findings: Findings) -> pd.DataFrame:
    """The channels whose range is the largest multiple of their layer's median, widest first."""
    channels = findings.table("outliers", "layer", "channel")
    if channels.empty:
        return channels
    medians = findings.table("outliers", "layer").set_index("linear")["median_range"]
    median = channels["linear"].map(medians)
    multiples = channels.assign(times=channels["range"] / median.where(median > 0))
    return multiples.dropna(subset="times").nlargest(TOP_CHANNELS, "times", keep="first")


def _by_linear(table: pd.DataFrame, how: Mapping[str, str]) -> pd.DataFrame:
    """One row per linear: its site and stream, and columns reduced over steps without NaN."""
    grouped = table.groupby("linear", sort=False)
    return grouped.agg({"site": "first", "stream": "first", **how}).reset_index()


def _judged(layers: pd.DataFrame, column: str, threshold: Threshold) -> Verdict:
    return Verdict(UNKNOWN) if layers.empty else judge(layers[column], threshold)


def _rule(threshold: Threshold) -> str:
    return f"A layer counts if {threshold.text}: {threshold.reason}."


def _sentence(verdict: Verdict, many: str, one: str) -> str:
    if verdict.word == UNKNOWN:
        return "This store cannot tell."
    if verdict.word == NO:
        return f"None of {verdict.known} layers {one}."
    return f"{verdict.count} of {verdict.known} layers {one if verdict.count == 1 else many}."


Column = tuple[str, str, Callable[[float], str]]


def _medians(layers: pd.DataFrame, columns: Sequence[Column]) -> tuple[Number, ...]:
    """Median over layers of every column that is known, with the extreme values."""
    found = []
    for label, name, text in columns:
        values = layers[name].dropna() if name in layers else pd.Series(dtype=float)
        if len(values):
            ends = f"{text(values.min())} to {text(values.max())}"
            found.append(Number(label, text(values.dropna().median()), f"median of layers; {ends}"))
    return tuple(found)


def _focus(layers: pd.DataFrame, column: str) -> str:
    """Site whose layers have the largest median of a column; empty if nothing is known."""
    if layers.empty or layers[column].isna().all():
        return ""
    return str(layers.groupby("site", sort=False)[column].median().idxmax())


def _site_tables(
    layers: pd.DataFrame, judged: str, threshold: Threshold, columns: Sequence[Column]
) -> tuple[Table, ...]:
    """Medians by site and stream, with the number of layers that reach the threshold."""
    if layers.empty:
        return ()
    known = [c for c in columns if c[1] in layers and layers[c[1]].notna().any()]
    rows = []
    for (site, stream), part in layers.groupby(["site", "stream"], sort=False):
        count = int((part[judged] >= threshold.value).sum())
        # pandas 2 warns of a median of nothing but NaN.
        cells = (text(part[name].dropna().median()) for _, name, text in known)
        rows.append((str(site), str(stream), f"{count} of {len(part)}", *cells))
    header = ("site", "stream", "layers that count", *(label for label, _, _ in known))
    return (Table("By site and stream, medians over layers", header, tuple(rows), labels=2),)


def _reasons(findings: Findings, *names: str) -> tuple[str, ...]:
    """Why a result is missing, as a note."""
    return tuple(missing_note(findings.missing[n]) for n in names if n in findings.missing)


def _times(ratio: float) -> str:
    return "–" if not np.isfinite(ratio) else f"{number(ratio)} ×"


def _decibels(value: float) -> str:
    # What rounding leaves of equal errors is none.
    return number(round(value, 9) + 0.0, "dB")

"""What quantizing costs: the worst layers, and the expected error of whole configurations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from taqstore.analysis.ranges.rules import RULES, compared
from taqstore.report.findings import CUTS, Findings, Plan
from taqstore.report.page import Number, Section, Table, decibel, number, percent, unanswered

_WORST = 12


def _step_errors(findings: Findings, bits: int, rule: str, cuts: str | None) -> pd.DataFrame:
    """Rows (step, layer) with `relative`, the expected squared error as a share of mean(x^2)."""
    table = findings.table(("error", bits, rule, cuts), "step", "layer")
    if table.empty:
        return table
    return table.assign(relative=10.0 ** (-table["sqnr"] / 10.0))


def layer_errors(findings: Findings, bits: int, rule: str, cuts: str | None) -> pd.Series[float]:
    """Mean relative error over steps of every linear; empty if it is not known."""
    if (rule, cuts) == ("mse", None):
        table = findings.table("bits", "layer", "choice")
        table = table if table.empty else table[table["choice"] == bits]
        column = "choice_error"
    else:
        table = _step_errors(findings, bits, rule, cuts)
        column = "relative"
    if table.empty:
        return pd.Series(dtype=float)
    means: pd.Series[float] = table.groupby("linear", sort=False)[column].mean()
    return means


def _worst_linears(findings: Findings, plan: Plan) -> pd.DataFrame:
    """Linears by their error at the fewest bits with absmax per step, largest first.

    Returns
    -------
    DataFrame indexed by linear
        `a<bits>` for every width and `best`, mean relative errors over steps; `sigma` of the worst
        step, where sigma is known; `step`. Empty without histograms.
    """
    low = _step_errors(findings, plan.bits[-1], "absmax", None)
    if low.empty or low["relative"].isna().all():
        return pd.DataFrame()
    low = low.dropna(subset="relative")
    peak = low.loc[low.groupby("linear", sort=False)["relative"].idxmax()].set_index("linear")
    columns = {f"a{bits}": layer_errors(findings, bits, "absmax", None) for bits in plan.bits}
    columns["best"] = layer_errors(findings, plan.bits[-1], "mse", None)
    known = [name for name in ("step", "sigma") if name in peak]
    table = pd.DataFrame(columns).join(peak[known])
    return table.sort_values(f"a{plan.bits[-1]}", ascending=False, kind="stable")


def worst(findings: Findings, plan: Plan) -> Section:
    """Which layers lose most."""
    table = _worst_linears(findings, plan)
    title, low = "Which layers are worst?", plan.bits[-1]
    if table.empty:
        return _unknown(findings, plan, "worst", title)
    rows = tuple(_worst_row(str(name), row, plan) for name, row in table.head(_WORST).iterrows())
    widths = tuple(f"A{bits}" for bits in plan.bits)
    header = ("layer", *widths, f"A{low}, least-error clip", "worst step")
    shown = min(_WORST, len(table))
    caption = f"SQNR of the {shown} worst of {len(table)} layers, absmax per step, mean over steps"
    name, first = str(table.index[0]), table.iloc[0]
    return Section(
        "worst",
        title,
        f"{name} loses most: {decibel(first[f'a{low}'])} at {low} bits with absmax clipping.",
        numbers=tuple(_spread(table[f"a{bits}"], bits) for bits in plan.bits),
        tables=(Table(caption, header, rows),),
        command=f"taqstore analyze error STORE --bits {low}",
        focus=name,
    )


def _worst_row(name: str, row: pd.Series[float], plan: Plan) -> tuple[str, ...]:
    place = number(row["step"]) + (f" (σ {number(row['sigma'])})" if "sigma" in row else "")
    errors = (decibel(row[f"a{bits}"]) for bits in plan.bits)
    return (name, *errors, decibel(row["best"]), place)


def _spread(errors: pd.Series[float], bits: int) -> Number:
    ends = f"worst {decibel(errors.max())}, best {decibel(errors.min())}"
    return Number(
        f"SQNR at {bits} bits", decibel(errors.dropna().median()), f"median of layers; {ends}"
    )


def configurations(findings: Findings, plan: Plan) -> Section:
    """What rules and widths cost over all layers and steps."""
    title = "What does a configuration cost?"
    costs = {
        (bits, rule, cuts): _overall(layer_errors(findings, bits, rule, cuts))
        for bits, rule, cuts in product(plan.bits, compared(), CUTS)
    }
    known = {key: cost for key, cost in costs.items() if np.isfinite(cost)}
    if not known:
        return _unknown(findings, plan, "configurations", title)
    rows = tuple(
        (
            f"{rule}: {RULES[rule].label}",
            "all together" if cuts else "each its own",
            *(_cost(costs[bits, rule, cuts]) for bits in plan.bits),
        )
        for rule, cuts in product(compared(), CUTS)
    )
    header = ("clip bound", "steps", *(f"A{bits}" for bits in plan.bits))
    caption = "SQNR and mean error as a share of mean(x²); all layers weigh alike"
    low = plan.bits[-1]
    best = min((k for k in known if k[0] == low), key=lambda key: known[key])
    plain = known.get((low, "absmax", None), np.nan)
    return Section(
        "configurations",
        title,
        f"At {low} bits the least error is that of {best[1]} clipping "
        f"{'for all steps together' if best[2] else 'per step'}: {decibel(known[best])}, "
        f"against {decibel(plain)} for absmax per step.",
        tables=(Table(caption, header, rows, labels=2),),
        command=f"taqstore analyze error STORE --bits {low} --clip {best[1]}",
        notes=_unpriced(findings, plan),
    )


def _overall(errors: pd.Series[float]) -> float:
    """Mean over linears; NaN if nothing is known."""
    return float(errors.mean()) if len(errors) else float("nan")


def _cost(error: float) -> str:
    return "–" if not np.isfinite(error) else f"{decibel(error)} ({percent(error, 2)})"


def _unpriced(findings: Findings, plan: Plan) -> tuple[str, ...]:
    reasons = dict.fromkeys(
        f"{rule}, {'static' if cuts else 'per step'}: {findings.missing[key]}."
        for rule, cuts in product(compared(), CUTS)
        if (key := ("error", plan.bits[0], rule, cuts)) in findings.missing
    )
    return tuple(reasons)


def _unknown(findings: Findings, plan: Plan, key: str, title: str) -> Section:
    reason = findings.missing.get(("error", plan.bits[0], "absmax", None), "no counted values")
    return unanswered(key, title, reason)

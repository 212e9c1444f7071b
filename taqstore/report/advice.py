"""What to do: groups of steps that share a clip range, and bits under a budget."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taqstore.analysis.shared.widths import by_lot, halfway, in_words, why_alike
from taqstore.report.findings import GROUPS_TOLERANCE, Findings, Plan
from taqstore.report.page import Number, Section, Table, decibel, number, percent, unanswered


def time_groups(findings: Findings, plan: Plan) -> Section:
    """Where to cut the steps into groups."""
    title = "Which steps can share a clip bound?"
    steps = findings.table("groups", "step")
    if steps.empty:
        reason = findings.missing.get("groups", "no counted values")
        return unanswered("groups", title, reason)
    curves = findings.table("groups", "groups")
    rows = tuple(
        _group_row(str(site), part, curves[curves["site"] == site])
        for site, part in steps.groupby("site", sort=False)
    )
    header = ("site", "cuts", "groups", "one range", "these groups", "a range per step", "clusters")
    caption = f"Optimal contiguous groups at {plan.group_bits} bits, SQNR over all layers and steps"
    counts = {row[0]: int(row[2]) for row in rows}
    return Section(
        "groups",
        title,
        f"Recommended at {plan.group_bits} bits: "
        + ", ".join(f"{_plural(count)} for {site}" for site, count in counts.items())
        + ".",
        rule=_group_rule(plan),
        tables=(Table(caption, header, rows, labels=2), _reach_table(curves)),
        command=f"taqstore analyze groups STORE --bits {plan.group_bits} --shared",
    )


def _group_rule(plan: Plan) -> str:
    found = "Groups are found by dynamic programming: no other contiguous groups have less error."
    if plan.groups is not None:
        return f"{found} Their number was given."
    return (
        f"{found} Their number is the least whose expected error is within "
        f"{percent(GROUPS_TOLERANCE)} of a range for every step: beyond it more ranges buy less "
        f"than {10 * np.log10(1 + GROUPS_TOLERANCE):.1f} dB."
    )


def _plural(count: int) -> str:
    return f"{count} group" + "s" * (count != 1)


def _group_row(site: str, steps: pd.DataFrame, curve: pd.DataFrame) -> tuple[str, ...]:
    member = steps["group"].to_numpy()
    if (member < 0).any():
        return (site, "–", "0", "–", "–", "–", "–")
    count = int(member.max()) + 1
    error = curve["optimal_error"].to_numpy()
    clusters = curve["cluster_error"].to_numpy()[count - 1]
    errors = (error[0], error[count - 1], error[-1], clusters)
    return (site, _spans(steps), str(count), *(decibel(value) for value in errors))


def _spans(steps: pd.DataFrame) -> str:
    """Steps of every group, by σ where it is known: ``1 – 0.84 | 0.8 – 0.01``."""
    by = "sigma" if "sigma" in steps and steps["sigma"].notna().all() else "step"
    ends = steps.groupby("group")[by].agg(["first", "last"])
    spans = (
        number(first) if first == last else f"{number(first)} – {number(last)}"
        for first, last in ends.itertuples(index=False)
    )
    return ("σ " if by == "sigma" else "steps ") + " | ".join(spans)


_REACHES = (0.5, 0.25, 0.1, 0.05, 0.01)


def _reach_table(curves: pd.DataFrame) -> Table:
    """Groups needed to come within a share of the error of a range per step."""
    rows = []
    for site, part in curves.groupby("site", sort=False):
        error = part["optimal_error"].to_numpy()
        needed = (int((error <= error[-1] * (1 + reach)).argmax()) + 1 for reach in _REACHES)
        known = np.isfinite(error).all()
        rows.append((str(site), *(str(count) if known else "–" for count in needed)))
    header = ("site", *(f"within {percent(reach)}" for reach in _REACHES))
    return Table("Groups needed to come close to a range per step", header, tuple(rows))


def bit_widths(findings: Findings, plan: Plan) -> Section:
    """Which layers to give more bits."""
    title = "Which layers need more bits?"
    layers = findings.table("bits", "layer")
    if layers.empty or not (layers["bits"] > 0).any():
        return unanswered("bits", title, findings.missing.get("bits", "no counted values"))
    layers = layers[layers["bits"] > 0]
    choices = findings.table("bits", "layer", "choice")
    uniform = choices.groupby("choice")["choice_error"].mean().sort_index()
    mine = float(layers["allocated_error"].mean())
    numbers = (
        Number("average width", number(layers["bits"].mean(), "bit"), f"budget {plan.budget:g}"),
        Number("SQNR of the allocation", decibel(mine), f"mean error {percent(mine, 2)}"),
        *(Number(f"all layers at {w} bits", decibel(e)) for w, e in uniform.items()),
    )
    return Section(
        "bits",
        title,
        f"Best at {plan.budget:g} bits on average: {in_words(layers['bits'])} bits; {decibel(mine)}"
        + _gain(uniform, plan)
        + _no_choice(layers, plan),
        rule="The allocation is the one of least summed relative error, found exactly by dynamic "
        "programming; every width is priced at its own clip bound of least expected error.",
        numbers=numbers,
        tables=(_bits_table(layers, plan),),
        command=f"taqstore analyze bits STORE --average {plan.budget:g} "
        + " ".join(f"--choice {width}" for width in plan.bits),
    )


def _gain(uniform: pd.Series[float], plan: Plan) -> str:
    """How the allocation compares with one that asks no layer, from the mean error by width."""
    plain = by_lot(uniform.tolist(), [int(width) for width in uniform.index], plan.budget)
    if plan.budget in uniform.index:
        return f", against {decibel(plain)} with {plan.budget:g} bits everywhere."
    return f", against {decibel(plain)} where as many bits are dealt by lot."


def _no_choice(layers: pd.DataFrame, plan: Plan) -> str:
    """What to say where all layers got the same."""
    alike = why_alike(layers["bits"], plan.bits)
    if not alike:
        return ""
    other = halfway(plan.bits)
    remedy = "" if other in (plan.budget, *plan.bits) else f"; --average {other:g} has them compete"
    return f" All get the same, as {alike}{remedy}."


def _bits_table(layers: pd.DataFrame, plan: Plan) -> Table:
    rows = tuple(
        (
            str(site),
            str(stream),
            *(str(int((part["bits"] == width).sum())) for width in plan.bits),
            number(part["bits"].mean()),
        )
        for (site, stream), part in layers.groupby(["site", "stream"], sort=False)
    )
    header = ("site", "stream", *(f"layers at A{width}" for width in plan.bits), "average")
    return Table("Layers by width", header, rows, labels=2)

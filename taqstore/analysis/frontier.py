"""Quality against average bits: the best format for every linear under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.effects import (
    Effects,
    Groups,
    Ints,
    chosen_formats,
    root_mean_square,
)
from taqstore.analysis.shared.inputs import finish
from taqstore.analysis.table import of_row
from taqstore.errors import MisuseError, problem
from taqstore.kinds.formats.weight_formats import FLOAT, FLOAT_BITS, Sizes
from taqstore.kinds.sensitivity import format_bits, quantizes_inputs, scores, sensitivities
from taqstore.names import parse_layer
from taqstore.quantization.allocation import allocate_sized
from taqstore.statistics.bins import Floats

NAME = "frontier"
SCORES = {
    "weight_error": "",
    "imatrix_error": "",
    "moment_error": "",
    "weight_relative": "weight_power",
    "imatrix_relative": "imatrix_power",
    "moment_relative": "output_power",
}
"""Static costs: a score as it is, or by a power that it is a share of."""
_UNIT = "linear"
_GRID = 0.5
_SLACK = 1e-9


@dataclass(frozen=True)
class _Choices:
    """What there is to choose: costs and sizes of every linear in every format, float at the end.

    Parameters
    ----------
    cost
        ``(target, format)``; infinite where a linear does not have the format.
    size
        Bits of the whole linear, ``(target, format)``.
    amount
        ``(target,)``: what bits are averaged over: weights, or channels of inputs.
    whole
        Whether scales and biases are all in `size`.
    """

    targets: tuple[str, ...]
    formats: tuple[str, ...]
    cost: Floats
    size: Ints
    amount: Ints
    whole: bool


@of_row(NAME)
def frontier(
    groups: Groups,
    *,
    formats: Sequence[str] = (),
    average: float | None = None,
    budgets: Sequence[float] = (),
    score: str | None = None,
    keep_float: bool = True,
    fused: bool = False,
) -> dict[str, xr.Dataset]:
    """Least predicted error at every budget of average bits, and which linear has which format.

    The predicted error of an allocation is the root of the sum over linears of the mean over images
    of ``|delta|^2 / |final|^2``: as if what linears do to the final latent were independent. The
    allocation has the least of all at its budget, found exactly (`quantization.allocate_sized`).
    Beside it `first_order_error` of the same allocation: the root mean square over images of
    ``|sum of deltas| / |final|``.

    Parameters
    ----------
    groups
        A store, with `sensitivity/linear/<format>`.
    formats
        To choose from; none: all of weights that were measured, or all of inputs where there are
        none of weights. They are all of weights or all of inputs.
    average
        Also give the allocation of this budget.
    budgets
        Rows; none: half bits from the least to the most of the formats, and the bits of each.
    score
        Make a static score least, a key of `SCORES`, in the place of the predicted error. What it
        predicts has other units: `score_cost`. The predicted error of its allocation is given
        beside where sensitivities are there.
    keep_float
        Whether linears may stay as they are, which counts as 16 bits.
    fused
        Whether q, k and v of one tensor have one format, as runtimes that fuse them need it.

    Returns
    -------
    Dataset
        (budget): `average_bits` of the allocation, `predicted_error`, `first_order_error`,
        `score_cost` with `score`, `kept_float` linears, `basis`: what was made least. (format) of
        all linears in one format, those that lack it as they are: `uniform_bits`,
        `uniform_error`, `uniform_first_order`, `uniform_score_cost`. (target) with `average`:
        `allocated`, its format; `allocated_bits`, a weight's (of formats of inputs a channel's);
        `allocated_error`, the root mean square of its own relative error.

        Attributes: `bits_counted` says whether scales and biases of groups are.

    Raises
    ------
    MissingError
        The store has no sensitivities of linears, or no scores, or not of these formats.
    MisuseError
        Formats of weights and inputs together, or a budget below what they allow.
    """
    measured = {name: data for (_, name), data in sensitivities(groups, _UNIT).items()}
    static = {name: data for (_, name), data in scores(groups, _UNIT).items()} if score else {}
    there = list(static if score else measured)
    what = "static scores of linears" if score else "sensitivities of linears"
    chosen = chosen_formats(there, _one_side(there, formats), what=what)
    _one_side(chosen, chosen)
    known = Effects.of({n: measured[n] for n in chosen}) if {*chosen} <= {*measured} else None
    choices = _choices(groups, chosen, known, static, score, keep_float=keep_float)
    rows = _rows(choices, budgets, average)
    picked = _allocated(choices, rows, fused=fused)
    result = _table(choices, known, rows, picked, score)
    if average is not None:
        result = result.merge(_chosen(choices, known, picked[rows.index(average)]))
    counted = "codes, and scales and biases of groups and outputs, as they are packed"
    if _of_inputs(chosen):
        counted = "of channels of inputs"
    elif not choices.whole:
        counted = "codes and scales of groups; not those of whole outputs, whose inputs the store"
        counted += " does not tell"
    source = next(iter({**measured, **static}.values()))
    return {
        NAME: finish(
            result.assign_attrs(bits_counted=counted, basis=_basis(score)),
            source,
            NAME,
            formats=list(chosen),
            average=average,
            score=score,
            keep_float=keep_float,
            fused=fused,
        )
    }


def _basis(score: str | None) -> str:
    return f"static {score}" if score else "sensitivity"


def _of_inputs(formats: Sequence[str]) -> bool:
    return bool(formats) and quantizes_inputs(formats[0])


def _one_side(there: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Formats of weights, or else of inputs; those that are asked for must be of one kind."""
    sides = {side: [n for n in (asked or there) if quantizes_inputs(n) == side] for side in (0, 1)}
    if asked and all(sides.values()):
        what = f"{sides[0][0]} is of weights and {sides[1][0]} of inputs"
        raise MisuseError(problem(what, remedy="ask for formats of one kind"))
    return sides[0] or sides[1]


def _choices(
    groups: Groups,
    formats: Sequence[str],
    known: Effects | None,
    static: Mapping[str, xr.Dataset],
    score: str | None,
    *,
    keep_float: bool,
) -> _Choices:
    datasets = [static[n] for n in formats] if score else list(known.datasets if known else ())
    amounts = _amounts(datasets, "input_channels" if _of_inputs(formats) else "weights")
    targets, names = tuple(amounts), (*formats, *[FLOAT] * keep_float)
    cost = np.full((len(targets), 0), np.nan)
    if score:
        cost = _static(datasets, targets, score)
    elif known:
        cost = known.squares()
    kept = np.zeros((len(targets), int(keep_float)))
    cost = np.column_stack([np.where(np.isnan(cost), np.inf, cost), kept])
    possible = np.isfinite(cost)
    lacking = np.flatnonzero(~possible.any(axis=1))
    if lacking.size:
        what = f"{targets[lacking[0]]} is not known in any format"
        raise MisuseError(problem(what, remedy="leave --no-float out"))
    size, whole = _sizes(groups, amounts, names, possible)
    amount = np.array(list(amounts.values()), np.int64)
    return _Choices(targets, names, cost, size, amount, whole)


def _amounts(datasets: Sequence[xr.Dataset], name: str) -> dict[str, int]:
    """What the bits of each target are averaged over."""
    found: dict[str, int] = {}
    for data in datasets:
        pairs = zip(data["target"].values, data[name].values, strict=True)
        found |= {str(target): int(amount) for target, amount in pairs}
    return found


def _sizes(
    groups: Groups, amounts: Mapping[str, int], formats: Sequence[str], possible: Any
) -> tuple[Ints, bool]:
    """Bits of whole linears ``(target, format)``, and whether scales and biases are in all."""
    size, whole = np.zeros(possible.shape, np.int64), True
    packed, of_inputs = Sizes(groups, amounts), _of_inputs(formats)
    for row, (target, amount) in enumerate(amounts.items()):
        for column in np.flatnonzero(possible[row]).tolist():
            if of_inputs:
                format = formats[column]
                bits = FLOAT_BITS if format == FLOAT else format_bits(format)
                size[row, column] = round(amount * bits)
            else:
                size[row, column], exact = packed.bits(target, formats[column])
                whole &= exact
    return size, whole


def _static(datasets: Sequence[xr.Dataset], targets: Sequence[str], score: str) -> Floats:
    found = np.full((len(targets), len(datasets)), np.nan)
    place = {name: index for index, name in enumerate(targets)}
    power = SCORES[score]
    for column, data in enumerate(datasets):
        values = data[f"{score.removesuffix('_relative')}_error" if power else score].values
        if power:
            whole = data[power].values
            values = np.divide(values, whole, out=np.zeros_like(values), where=whole > 0)
        found[[place[str(name)] for name in data["target"].values], column] = values
    return found


def _rows(choices: _Choices, budgets: Sequence[float], average: float | None) -> list[float]:
    """Budgets of average bits, ascending."""
    total = int(choices.amount.sum())
    possible = np.isfinite(choices.cost)
    least = np.where(possible, choices.size, np.iinfo(np.int64).max).min(axis=1).sum() / total
    asked = [*budgets, *([] if average is None else [average])]
    below = [budget for budget in asked if budget < least * (1 - _SLACK)]
    if below:
        what = f"an average of {below[0]:g} bits is less than the smallest formats allow"
        raise MisuseError(problem(what, found=f"{least:.6g}"))
    if not budgets:
        each = [bits for bits, _ in (_uniform(choices, c) for c in range(len(choices.formats)))]
        quantized = [b for b, f in zip(each, choices.formats, strict=True) if f != FLOAT]
        first, most = np.ceil(least / _GRID) * _GRID, max(quantized)
        asked += [least, *np.arange(first, most, _GRID).tolist(), *quantized]
    return sorted({float(budget) for budget in asked})


def _uniform(choices: _Choices, column: int) -> tuple[float, Ints]:
    """Average bits of one format for all linears that have it, and which each then has."""
    have = np.isfinite(choices.cost[:, column])
    if not have.all() and FLOAT not in choices.formats:
        smallest = np.where(np.isfinite(choices.cost), choices.cost, np.inf).argmin(axis=1)
        picked = np.where(have, column, smallest)
    else:
        picked = np.where(have, column, len(choices.formats) - 1)
    size = choices.size[np.arange(len(picked)), picked].sum()
    return float(size / choices.amount.sum()), picked.astype(np.int64)


def _allocated(choices: _Choices, rows: Sequence[float], *, fused: bool) -> Ints:
    """Format of every linear ``(row, target)``."""
    total = int(choices.amount.sum())
    budgets = [int(np.floor(row * total * (1 + _SLACK))) for row in rows]
    names = [parse_layer(name) for name in choices.targets]
    keys = [(n.input.full, n.projection != "") if fused and n.projection else n.full for n in names]
    unit = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    member = np.array([unit[key] for key in keys])
    cost = np.zeros((len(unit), len(choices.formats)))
    size = np.zeros(cost.shape, np.int64)
    np.add.at(cost, member, choices.cost)
    np.add.at(size, member, choices.size)
    found: Ints = allocate_sized(cost, size, budgets=budgets)[:, member]
    return found


def _table(
    choices: _Choices,
    known: Effects | None,
    rows: Sequence[float],
    picked: Ints,
    score: str | None,
) -> xr.Dataset:
    uniform = [f for f in choices.formats if f != FLOAT]
    one = [_uniform(choices, column) for column in range(len(uniform))]
    every = np.concatenate([picked, *(choice[None] for _, choice in one)])
    told = _predicted(choices, known, every, score)
    count = len(rows)
    kept = [(np.array(choices.formats)[row] == FLOAT).sum() for row in picked]
    at = np.arange(len(choices.targets))
    bits = [float(choices.size[at, row].sum() / choices.amount.sum()) for row in picked]
    return xr.Dataset(
        {
            "average_bits": ("budget", bits),
            **{name: ("budget", values[:count]) for name, values in told.items()},
            "kept_float": ("budget", np.array(kept, np.int64)),
            "basis": ("budget", np.array([_basis(score)] * count, dtype=object)),
            "uniform_bits": ("format", [bits for bits, _ in one]),
            **{_UNIFORM[name]: ("format", values[count:]) for name, values in told.items()},
        },
        {"budget": list(rows), "format": np.array(uniform, dtype=object)},
    )


_UNIFORM = {
    "predicted_error": "uniform_error",
    "first_order_error": "uniform_first_order",
    "score_cost": "uniform_score_cost",
}


def _predicted(
    choices: _Choices, known: Effects | None, picked: Ints, score: str | None
) -> dict[str, Floats]:
    at = np.arange(len(choices.targets))
    found: dict[str, Floats] = {}
    if score:
        found["score_cost"] = np.array([choices.cost[at, row].sum() for row in picked])
    if known is None:
        return found
    place = {name: index for index, name in enumerate(choices.targets)}
    order = [place.get(name, -1) for name in known.targets]
    inner = np.where(np.array(order) < 0, -1, picked[:, order])
    inner = np.where(inner < len(known.formats), inner, -1)
    squares = np.nan_to_num(np.column_stack([known.squares(), np.zeros(len(order))]))
    sums = [squares[np.arange(len(order)), row].sum() for row in inner]
    found["predicted_error"] = np.sqrt(np.array(sums))
    found["first_order_error"] = root_mean_square(known.together(inner))
    return found


def _chosen(choices: _Choices, known: Effects | None, row: Ints) -> xr.Dataset:
    at = np.arange(len(choices.targets))
    found = {
        "allocated": ("target", np.array(choices.formats, dtype=object)[row]),
        "allocated_bits": ("target", choices.size[at, row] / choices.amount),
    }
    if known is not None:
        squares = dict(zip(known.targets, known.squares(), strict=True))
        none = np.full(len(known.formats), np.nan)
        error = [
            0.0 if choices.formats[f] == FLOAT else float(np.sqrt(squares.get(t, none)[f]))
            for t, f in zip(choices.targets, row.tolist(), strict=True)
        ]
        found["allocated_error"] = ("target", np.array(error))
    return xr.Dataset(found, {"target": np.array(choices.targets, dtype=object)})

"""Quality against average bits: the best format for every linear under a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from taqstore.analysis.shared.choices import Choices, choices_of, of_inputs, uniform_of
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
from taqstore.kinds.formats.weight_formats import FLOAT
from taqstore.kinds.sensitivity import quantizes_inputs, scores, sensitivities
from taqstore.names import parse_layer
from taqstore.quantization.allocation import allocate_sized
from taqstore.statistics.bins import Floats

NAME = "frontier"
_UNIT = "linear"
_GRID = 0.5
_SLACK = 1e-9


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

        Attributes: `bits_counted` says whether scales and biases of groups are; `note` names
        linears that are not given a format because the final latent was no number.

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
    choices = choices_of(groups, chosen, known, static, score, keep_float=keep_float)
    units = _Units.of(choices, fused=fused)
    rows = _rows(choices, units.least, budgets, average)
    picked = units.allocated(choices, rows)
    result = _table(choices, known, rows, picked, score)
    if average is not None:
        result = result.merge(_chosen(choices, known, picked[rows.index(average)]))
    counted = "codes, and scales and biases of groups and outputs, as they are packed"
    if of_inputs(chosen):
        counted = "of channels of inputs"
    elif not choices.whole:
        counted = "codes and scales of groups; not those of whole outputs, whose inputs the store"
        counted += " does not tell"
    source = next(iter({**measured, **static}.values()))
    return {
        NAME: finish(
            result.assign_attrs(bits_counted=counted, basis=_basis(score), note=_note(known)),
            source,
            NAME,
            formats=list(chosen),
            average=average,
            score=score,
            keep_float=keep_float,
            fused=fused,
        )
    }


def _note(known: Effects | None) -> str:
    """Which choices there are not, as a line; empty: all are."""
    broken = [] if known is None else known.broken()
    if not broken:
        return ""
    target, format = broken[0]
    more = f", nor are {len(broken) - 1} other choices" * (len(broken) > 1)
    return f"{target} is not given {format}: its final latent is no number{more}"


def _basis(score: str | None) -> str:
    return f"static {score}" if score else "sensitivity"


def _one_side(there: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Formats of weights, or else of inputs; those that are asked for must be of one kind."""
    sides = {side: [n for n in (asked or there) if quantizes_inputs(n) == side] for side in (0, 1)}
    if asked and all(sides.values()):
        what = f"{sides[0][0]} is of weights and {sides[1][0]} of inputs"
        raise MisuseError(problem(what, remedy="ask for formats of one kind"))
    return sides[0] or sides[1]


@dataclass(frozen=True)
class _Units:
    """Linears that have one format: each on its own, or fused.

    Parameters
    ----------
    member
        ``(target,)`` which unit a linear is of.
    cost, size
        ``(unit, format)``, of `Choices`.
    """

    member: Ints
    cost: Floats
    size: Ints

    @classmethod
    def of(cls, choices: Choices, *, fused: bool) -> _Units:
        """Units, each with a format that all its linears have.

        Raises
        ------
        MisuseError
            Linears of one have no format in common.
        """
        names = [parse_layer(name) for name in choices.targets]
        keys = [n.input.full if fused and n.projection else n.full for n in names]
        unit = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        member = np.array([unit[key] for key in keys])
        cost = np.zeros((len(unit), len(choices.formats)))
        size = np.zeros(cost.shape, np.int64)
        np.add.at(cost, member, choices.cost)
        np.add.at(size, member, choices.size)
        lacking = np.flatnonzero(~np.isfinite(cost).any(axis=1))
        if lacking.size:
            what = f"the linears of {list(unit)[lacking[0]]} have no format in common"
            raise MisuseError(problem(what, remedy="leave --fused or --no-float out"))
        return cls(member, cost, size)

    @property
    def least(self) -> int:
        """Bits of all linears in their smallest formats."""
        possible = np.isfinite(self.cost)
        return int(np.where(possible, self.size, np.iinfo(np.int64).max).min(axis=1).sum())

    def allocated(self, choices: Choices, rows: Sequence[float]) -> Ints:
        """Format of every linear ``(row, target)``."""
        total = int(choices.amount.sum())
        budgets = [int(np.floor(row * total * (1 + _SLACK))) for row in rows]
        found: Ints = allocate_sized(self.cost, self.size, budgets=budgets)[:, self.member]
        return found


def _rows(
    choices: Choices, smallest: int, budgets: Sequence[float], average: float | None
) -> list[float]:
    """Budgets of average bits, ascending, none below `smallest`, the bits of all linears."""
    least = smallest / int(choices.amount.sum())
    asked = [*budgets, *([] if average is None else [average])]
    below = [budget for budget in asked if budget < least * (1 - _SLACK)]
    if below:
        what = f"an average of {below[0]:g} bits is less than the smallest formats allow"
        enough = np.ceil(least * 1e4) / 1e4
        raise MisuseError(problem(what, remedy=f"give {enough:g} or more"))
    if not budgets:
        each = [bits for bits, _ in (uniform_of(choices, c) for c in range(len(choices.formats)))]
        quantized = [b for b, f in zip(each, choices.formats, strict=True) if f != FLOAT]
        first, most = np.ceil(least / _GRID) * _GRID, max(quantized)
        asked += [least, *np.arange(first, most, _GRID).tolist()]
        asked += [bits for bits in quantized if bits >= least]
    return sorted({float(budget) for budget in asked})


def _table(
    choices: Choices,
    known: Effects | None,
    rows: Sequence[float],
    picked: Ints,
    score: str | None,
) -> xr.Dataset:
    uniform = [f for f in choices.formats if f != FLOAT]
    one = [uniform_of(choices, column) for column in range(len(uniform))]
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
    choices: Choices, known: Effects | None, picked: Ints, score: str | None
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
    squares = np.column_stack([known.squares(), np.zeros(len(order))])
    squares[np.isnan(squares)] = 0
    sums = [squares[np.arange(len(order)), row].sum() for row in inner]
    found["predicted_error"] = np.sqrt(np.array(sums))
    found["first_order_error"] = root_mean_square(known.together(inner))
    return found


def _chosen(choices: Choices, known: Effects | None, row: Ints) -> xr.Dataset:
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

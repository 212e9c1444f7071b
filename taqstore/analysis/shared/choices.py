"""What there is to choose from: costs and sizes of every linear in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.effects import Effects, Groups, Ints
from taqstore.analysis.shared.score_costs import SCORES
from taqstore.errors import MisuseError, problem
from taqstore.kinds.formats.weight_formats import FLOAT, FLOAT_BITS, Sizes
from taqstore.kinds.sensitivity import format_bits, quantizes_inputs
from taqstore.statistics.bins import Floats


@dataclass(frozen=True)
class Choices:
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


def choices_of(
    groups: Groups,
    formats: Sequence[str],
    known: Effects | None,
    static: Mapping[str, xr.Dataset],
    score: str | None,
    *,
    keep_float: bool,
) -> Choices:
    """Choices among formats, by sensitivities, or by a static score.

    Parameters
    ----------
    groups
        Of the store, for the sizes of packed linears.
    formats
        To choose from.
    known
        Sensitivities in all of them, or None.
    static
        Static scores by format, where `score` is one of `SCORES`; None: `known` are the costs.
    keep_float
        Whether linears may stay as they are.

    Raises
    ------
    MisuseError
        A linear has no format.
    """
    datasets = [static[n] for n in formats] if score else list(known.datasets if known else ())
    amounts = _amounts(datasets, "input_channels" if of_inputs(formats) else "weights")
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
    return Choices(targets, names, cost, size, amount, whole)


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
    packed, channels = Sizes(groups, amounts), of_inputs(formats)
    for row, (target, amount) in enumerate(amounts.items()):
        for column in np.flatnonzero(possible[row]).tolist():
            if channels:
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


def uniform_of(choices: Choices, column: int) -> tuple[float, Ints]:
    """Average bits of one format for all linears that have it, and which each then has."""
    have = np.isfinite(choices.cost[:, column])
    if not have.all() and FLOAT not in choices.formats:
        smallest = np.where(np.isfinite(choices.cost), choices.cost, np.inf).argmin(axis=1)
        picked = np.where(have, column, smallest)
    else:
        picked = np.where(have, column, len(choices.formats) - 1)
    size = choices.size[np.arange(len(picked)), picked].sum()
    return float(size / choices.amount.sum()), picked.astype(np.int64)


def of_inputs(formats: Sequence[str]) -> bool:
    """Whether formats are of inputs, else of weights; they are all of one kind."""
    return bool(formats) and quantizes_inputs(formats[0])

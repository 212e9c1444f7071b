"""Choosing one of a few integer sizes for every unit, at least total cost under a total budget."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import TaqError, problem
from taqstore.statistics.bins import Floats

Ints = npt.NDArray[np.int64]

MAX_TABLE = 1 << 30
"""Bytes of the table of decisions, one per unit and amount of budget."""
_SLACK = 1e-9  # an average of 5.6 over 10 units is 56, whatever floating point says


def allocate(cost: npt.ArrayLike, sizes: Sequence[int], *, average: float) -> Ints:
    """Size of every unit: least total cost of all choices whose sizes average at most `average`.

    A multiple-choice knapsack, solved exactly by dynamic programming over the total size (in steps
    of the greatest common divisor of the sizes' differences): the total cost is the least of all
    ``len(sizes) ** units`` choices within the budget, but for rounding of sums; of equal costs the
    smaller total size wins. Not an approximation by a Lagrangian multiplier, which misses choices
    off the convex hull.

    Parameters
    ----------
    cost
        ``(unit, size)``, in the order of `sizes`. Units with a NaN are left out.
    sizes
        Distinct integers, ascending.
    average
        Largest mean size over the units that take part.

    Returns
    -------
    int64 ``(unit,)``; 0 for units left out.

    Raises
    ------
    TaqError
        The budget is below the smallest size, or the problem is too large for the table.
    """
    chosen: Ints = allocate_each(cost, sizes, averages=[average])[0]
    return chosen


def allocate_each(cost: npt.ArrayLike, sizes: Sequence[int], *, averages: Sequence[float]) -> Ints:
    """As `allocate` for each of some averages, ``(average, unit)``, from one table."""
    costs = np.asarray(cost, np.float64)
    chosen = np.zeros((len(averages), len(costs)), np.int64)
    known = np.flatnonzero(~np.isnan(costs).any(axis=1))
    if not known.size:
        return chosen
    smallest = sizes[0]
    unit = gcd(*(size - smallest for size in sizes)) or 1
    weights = [(size - smallest) // unit for size in sizes]
    spares = [
        floor((average - smallest) * known.size / unit * (1 + _SLACK) + _SLACK)
        for average in averages
    ]
    if min(spares) < 0:
        what = f"an average of {min(averages):g} bits is less than the smallest choice"
        raise TaqError(problem(what, found=str(smallest)))
    spares = [min(spare, weights[-1] * known.size) for spare in spares]
    same = np.broadcast_to(np.array(weights, np.int64), (known.size, len(weights)))
    chosen[:, known] = np.asarray(sizes)[_decide(costs[known], same, spares)]
    return chosen


def allocate_sized(cost: npt.ArrayLike, size: npt.ArrayLike, *, budgets: Sequence[int]) -> Ints:
    """Choice of every unit: least total cost of all choices whose sizes sum to at most a budget.

    As `allocate`, for units that are not alike: each has a size of its own for every choice. All
    budgets are answered from one table.

    Parameters
    ----------
    cost
        ``(unit, choice)``. Infinite where a unit does not have the choice.
    size
        Integers ``(unit, choice)``, such as bits of a whole tensor, in any order.
    budgets
        Largest total sizes.

    Returns
    -------
    int64 ``(budget, unit)``: which choice.

    Raises
    ------
    TaqError
        A cost is NaN, a budget is below the smallest total, or the problem is too large for the
        table.
    """
    costs, sizes = np.asarray(cost, np.float64), np.asarray(size, np.int64)
    if np.isnan(costs).any():
        unit = int(np.flatnonzero(np.isnan(costs).any(axis=1))[0])
        raise TaqError(problem(f"the cost of unit {unit} is not known"))
    possible = np.isfinite(costs)
    smallest = np.where(possible, sizes, np.iinfo(np.int64).max).min(axis=1)
    least = int(smallest.sum())
    if min(budgets) < least or not possible.any(axis=1).all():
        what = f"a budget of {min(budgets)} is less than the smallest choices"
        raise TaqError(problem(what, found=str(least)))
    above = np.where(possible, sizes - smallest[:, None], 0)
    step = int(np.gcd.reduce(above, axis=None)) or 1
    weights = above // step
    most = int(weights.max(axis=1).sum())
    spares = [min((budget - least) // step, most) for budget in budgets]
    # A choice that a unit does not have weighs more than there is.
    return _decide(costs, np.where(possible, weights, max(spares) + 1), spares)


def _decide(costs: Floats, weights: Ints, spares: Sequence[int]) -> Ints:
    """Choices ``(spare, unit)`` for costs and weights ``(unit, choice)``."""
    most = max(spares)
    if len(costs) * (most + 1) > MAX_TABLE:
        what = f"{len(costs)} units and a budget of {most} steps are too many to decide exactly"
        raise TaqError(problem(what, remedy="choose per layer, or fewer layers or bit widths"))
    table = np.zeros((len(costs), most + 1), np.int8)
    total = np.zeros(most + 1)
    for row, options, sizes in zip(table, costs, weights.tolist(), strict=True):
        total = _extend(total, options, sizes, row)
    picked = np.zeros((len(spares), len(costs)), np.int64)
    for place, spare in enumerate(spares):
        left = int(total[: spare + 1].argmin())
        for index in range(len(costs) - 1, -1, -1):
            picked[place, index] = table[index, left]
            left -= int(weights[index, picked[place, index]])
    return picked


def _extend(
    total: Floats, options: Floats, weights: Sequence[int], decision: npt.NDArray[Any]
) -> Floats:
    """Least cost with one more unit for every amount spent, which `decision` notes."""
    best = np.full(len(total), np.inf)
    for index, weight in enumerate(weights):
        if weight >= len(total):
            continue
        tried = total[: len(total) - weight] + options[index]
        better = tried < best[weight:]
        np.copyto(best[weight:], tried, where=better)
        np.copyto(decision[weight:], index, where=better)
    return best

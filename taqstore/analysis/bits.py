"""Bit widths under a budget of average bits, by expected error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.known import known_values
from taqstore.analysis.scales import checked_scheme
from taqstore.analysis.shared.inputs import Array, finish, over
from taqstore.analysis.shared.pooled_bins import common_bins
from taqstore.analysis.shared.widths import halfway
from taqstore.analysis.table import of_row
from taqstore.errors import MisuseError, problem
from taqstore.quantization.allocation import allocate
from taqstore.quantization.counts import known_rows, mean_over
from taqstore.quantization.search import Scheme, best_quantizer
from taqstore.quantization.spread import Spread
from taqstore.store.given import handed

PerUnit = Literal["layer", "step"]
Weight = Literal["relative", "absolute"]

_NAME = "bits"
CHOICES = (4, 6, 8)
_COST = "choice_error"


@of_row(_NAME)
def bits(
    dataset: xr.Dataset,
    *,
    average: float | None = None,
    choices: Sequence[int] = CHOICES,
    per: PerUnit = "layer",
    weight: Weight = "relative",
    symmetric: bool = True,
) -> xr.Dataset:
    """Best allocation of bit widths to the layers of one group; see `joint_bits`."""
    options: dict[str, Any] = {"choices": choices, "per": per, "weight": weight}
    return joint_bits({"": dataset}, average=average, symmetric=symmetric, **options)[""]


@of_row(_NAME)
def joint_bits(
    datasets: Mapping[str, xr.Dataset],
    *,
    average: float | None = None,
    choices: Sequence[int] = CHOICES,
    per: PerUnit = "layer",
    weight: Weight = "relative",
    symmetric: bool = True,
) -> dict[str, xr.Dataset]:
    """Best allocation of bit widths to all layers of several groups under one budget.

    Each choice costs the expected squared error at the clip range of least error for that width and
    step. The sum of costs is the least of all allocations whose bits average at most `average` over
    units, found exactly by dynamic programming (`taqstore.quantization.allocation.allocate`).

    Parameters
    ----------
    datasets
        Observations or pooled sources with histograms, by any key.
    average
        Budget in bits per unit; by default that of `shared.widths.halfway`.
    choices
        Bit widths to choose from.
    per
        A unit is a layer (one width for all its steps, the error their mean over steps), or a layer
        at a step.
    weight
        `relative`: errors as shares of mean(x^2) of the layer and step, the inverse of the SQNR;
        `absolute`: in squared units of the values.
    symmetric
        As in `scales`.

    Returns
    -------
    Datasets by the keys of `datasets`
        ([step, ]layer[, projection]): `bits`, 0 where nothing was counted; `allocated_error`, the
        cost of the chosen width. The same with (choice): `choice_error`, the cost of every width.

    Raises
    ------
    MissingError
        There are no histograms.
    MisuseError
        An option out of its range, or a budget below the smallest width.
    """
    widths, average = _checked(choices, average)
    schemes = tuple(checked_scheme(width, symmetric, False) for width in widths)
    costs = [
        data[_COST] if _COST in data else _choice_errors(data, schemes, per, weight)
        for data in datasets.values()
    ]
    chosen = _allocated(costs, widths, average)
    results = {}
    for (key, dataset), cost, width in zip(datasets.items(), costs, chosen, strict=True):
        picked = cost.where(cost["choice"] == width).sum("choice", min_count=1)
        result = xr.Dataset({"bits": width, "allocated_error": picked, _COST: cost})
        results[key] = finish(
            result,
            dataset,
            _NAME,
            average=average,
            choices=list(widths),
            per=per,
            weight=weight,
            symmetric=symmetric,
        )
    return results


@handed
def choice_errors(
    dataset: xr.Dataset,
    *,
    average: float | None = None,
    choices: Sequence[int] = CHOICES,
    per: PerUnit = "layer",
    weight: Weight = "relative",
    symmetric: bool = True,
) -> xr.Dataset:
    """Costs of all widths, `choice_error` of `joint_bits`, which takes these in place of groups."""
    widths, _ = _checked(choices, average)
    schemes = tuple(checked_scheme(width, symmetric, False) for width in widths)
    cost = _choice_errors(dataset, schemes, per, weight)
    return xr.Dataset({_COST: cost}, attrs=dataset.attrs)


def _checked(choices: Sequence[int], average: float | None) -> tuple[tuple[int, ...], float]:
    widths = tuple(sorted(set(choices)))
    if not widths:
        raise MisuseError("there are no bit widths to choose from")
    average = halfway(widths) if average is None else average
    if not average >= widths[0]:
        what = f"an average of {average:g} bits is less than the smallest choice"
        raise MisuseError(problem(what, found=str(widths[0])))
    return widths, average


def _choice_errors(
    dataset: xr.Dataset, schemes: tuple[Scheme, ...], per: str, weight: str
) -> xr.DataArray:
    counts, spread = common_bins(dataset, analysis=_NAME)
    known = known_values(dataset)
    cost: xr.DataArray = over(
        _least_errors,
        counts,
        *known,
        core=(("bin",), *[("value",)] * len(known)),
        out=(("choice",),),
        sizes={"choice": len(schemes)},
        spread=spread,
        schemes=schemes,
        relative=weight == "relative",
    )
    cost = cost.assign_coords(choice=[scheme.bits for scheme in schemes])
    return cost.mean("step") if per == "layer" else cost


def _least_errors(
    counts: Array, *known: Array, spread: Spread, schemes: tuple[Scheme, ...], relative: bool
) -> Array:
    """Least expected error at every width, ``(..., choice)``."""
    rows = counts.reshape(-1, counts.shape[-1])
    values = known_rows(known[0] if known else None, counts.shape[:-1])
    errors = np.stack([_error(rows, spread, scheme, values) for scheme in schemes], axis=-1)
    if relative:
        power = mean_over(rows, spread, lambda bins, _: bins.square(), known=values)[:, None]
        errors = np.divide(errors, power, out=np.where(power == 0, 0.0, errors), where=power > 0)
    return errors.reshape(*counts.shape[:-1], len(schemes))


def _error(rows: Array, spread: Spread, scheme: Scheme, known: Array | None) -> Array:
    best = best_quantizer(rows, spread, scheme, known=known)
    return mean_over(rows, spread, lambda bins, part: bins.error(best[part]), known=known)


def _allocated(
    costs: Sequence[xr.DataArray], widths: tuple[int, ...], average: float
) -> list[xr.DataArray]:
    """Bits of all units of all groups together, in one task."""
    renamed = [
        _in_one_block(cost)
        .rename({d: f"{d}_{i}" for d in cost.dims if d != "choice"})
        .reset_coords(drop=True)
        for i, cost in enumerate(costs)
    ]
    dims = [tuple(str(d) for d in cost.dims if d != "choice") for cost in renamed]
    found = over(
        _allocate,
        *renamed,
        core=tuple((*d, "choice") for d in dims),
        out=tuple(dims),
        dtypes=(np.int64,) * len(dims),
        widths=widths,
        average=average,
    )
    found = found if isinstance(found, tuple) else (found,)
    template = [cost.isel(choice=0, drop=True) for cost in costs]
    return [like.copy(data=width.data) for like, width in zip(template, found, strict=True)]


def _in_one_block(cost: xr.DataArray) -> xr.DataArray:
    return cost.chunk(dict.fromkeys(cost.dims, -1)) if cost.chunks else cost


def _allocate(*costs: Array, widths: tuple[int, ...], average: float) -> Any:
    units = [cost.reshape(-1, len(widths)) for cost in costs]
    chosen = allocate(np.concatenate(units), widths, average=average)
    parts = np.split(chosen, np.cumsum([len(part) for part in units])[:-1])
    shaped = tuple(part.reshape(cost.shape[:-1]) for part, cost in zip(parts, costs, strict=True))
    return shaped if len(shaped) > 1 else shaped[0]

"""Groups of neighbouring steps that share a clip range, and what sharing costs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from taqstore.analysis.costs.group_costs import (
    Histograms,
    group_ranges,
    layer_costs,
    run_costs,
    told_costs,
)
from taqstore.analysis.ranges.known import known_values
from taqstore.analysis.ranges.steps import Cuts, cuts_text, step_groups
from taqstore.analysis.scales import checked_scheme, quantizers
from taqstore.analysis.shared.inputs import Array, finish, over, require
from taqstore.analysis.shared.pooled_bins import common_bins
from taqstore.analysis.table import of_row
from taqstore.errors import TaqError, problem
from taqstore.quantization.partition import TIE, bucketed, clustered, optimal, total_cost

Method = Literal["optimal", "cluster", "sigma", "given"]

_NAME = "groups"
SIGMA_EDGES = (0.3, 0.7)
"""Edges of the source's buckets: early above 0.7, mid, late below 0.3."""


@of_row(_NAME)
def groups(
    dataset: xr.Dataset,
    *,
    bits: int = 8,
    symmetric: bool = True,
    method: Method = "optimal",
    count: int | None = None,
    tolerance: float | None = None,
    sigma_edges: Sequence[float] = SIGMA_EDGES,
    cuts: Cuts = None,
    shared: bool = False,
) -> xr.Dataset:
    """Contiguous groups of steps, each with one clip range of least expected error.

    ``cost(i, j) = min over clip ranges of sum over steps i..j of the squared error``: histograms
    add, so errors under one candidate range do, and all ``n (n + 1) / 2`` costs come from one table
    (step, candidate). The candidates are a logarithmic grid (symmetric: 32 clip bounds per factor
    of two; affine: 4, at 17 places of zero). Four ways to cut:

    * `optimal`: dynamic programming, least total cost of contiguous groups (`partition`);
    * `cluster`: adjacency-constrained Ward clustering of log2 of each step's own best step size;
    * `sigma`: fixed buckets of sigma;
    * `given`: where `cuts` say.

    Parameters
    ----------
    dataset
        Observations or a pooled source with histograms.
    bits, symmetric
        As in `scales`.
    method
        Which partition is given out; errors are given for all that are known.
    count
        Number of groups for `optimal` and `cluster`; by default the least whose error is at most
        ``1 + tolerance`` times that of a range for every step.
    tolerance
        See `count`; by default 0.05.
    sigma_edges
        Edges between the buckets of `sigma`; a step on an edge is of the noisier bucket.
    cuts
        Labels of the steps that begin a group of `given`, or `static`: one group.
    shared
        One partition for all layers of the group, by the mean over layers of error / mean(x^2).

    Returns
    -------
    Dataset
        (layer, groups): `optimal_error`, `cluster_error`, the expected squared error over all
        steps for 1 to n groups (as a share of mean(x^2) and without `layer` if `shared`); (layer):
        `sigma_error` with a coordinate sigma, `given_error` with `cuts`. (layer, step): `group`, -1
        where nothing was counted; (layer): `group_count`; (step, layer): `lower`, `upper`,
        `step_size`, `zero_point` (and `alpha`) of the group of every step, searched to full
        resolution.

    Raises
    ------
    MissingError
        There are no histograms, no sigma for `method="sigma"`, or no such step to cut at.
    TaqError
        More groups than steps.
    MisuseError
        An option out of its range, or that does not go with the others.
    """
    _check(count, dataset.sizes.get("step", 0))
    scheme = checked_scheme(bits, symmetric, False)
    require(dataset, ("step", "sigma") if method == "sigma" else ("step",), analysis=_NAME)
    histograms = Histograms(*common_bins(dataset, analysis=_NAME), known_values(dataset))
    cost, path = run_costs(histograms, scheme, shared=shared)
    curves, partitions = _partitions(dataset, cost, path, sigma_edges)
    if cuts is not None:
        partitions["given"], curves["given_error"] = price_cuts(dataset, cost, cuts)
    group, number = _chosen(curves, partitions, method, count, tolerance)
    ranges = group_ranges(histograms, group, scheme)
    result: dict[Hashable, xr.DataArray] = {
        **{str(name): error for name, error in curves.items()},
        "group": group,
        "group_count": number,
        **quantizers(ranges, scheme).transpose("step", ...),
    }
    return _finished(
        xr.Dataset(result),
        dataset,
        bits=bits,
        symmetric=symmetric,
        method=method,
        count=count,
        tolerance=tolerance,
        sigma_edges=list(sigma_edges),
        cuts=cuts_text(cuts),
        shared=shared,
    )


def _finished(result: xr.Dataset, dataset: xr.Dataset, **options: Any) -> xr.Dataset:
    numbers = np.arange(1, dataset.sizes["step"] + 1)
    return finish(result.assign_coords(groups=numbers), dataset, _NAME, **options)


def curves_of(
    dataset: xr.Dataset, *, bits: int, asked: Sequence[tuple[bool, int | None, float | None]]
) -> list[xr.Dataset]:
    """Errors by the number of groups, and groups, as `groups` tells them, without clip ranges.

    Parameters
    ----------
    asked
        `shared`, `count` and `tolerance` of each answer: costs are worked out once for all.

    Raises
    ------
    MissingError, TaqError
        As of `groups`.
    """
    for _, count, _ in asked:
        _check(count, dataset.sizes.get("step", 0))
    scheme = checked_scheme(bits, True, False)
    require(dataset, ("step",), analysis=_NAME)
    histograms = Histograms(*common_bins(dataset, analysis=_NAME), known_values(dataset))
    costs = layer_costs(histograms, scheme)
    common: dict[str, Any] = {
        "bits": bits,
        "symmetric": True,
        "method": "optimal",
        "sigma_edges": list(SIGMA_EDGES),
        "cuts": cuts_text(None),
    }
    found = []
    for shared, count, tolerance in asked:
        told = told_costs(*costs, shared=shared)
        curves, partitions = _partitions(dataset, *told, SIGMA_EDGES)
        group, number = _chosen(curves, partitions, "optimal", count, tolerance)
        result = xr.Dataset({**curves, "group": group, "group_count": number})
        known = histograms.counts.coords.items()  # ranges of these groups have them
        labels = {name: label for name, label in known if {*label.dims} <= {*result.dims}}
        result = result.assign_coords(labels)
        how = {"count": count, "tolerance": tolerance, "shared": shared}
        found.append(_finished(result, dataset, **common, **how))
    return found


def price_cuts(
    dataset: xr.Dataset, cost: xr.DataArray, cuts: Cuts
) -> tuple[xr.DataArray, xr.DataArray]:
    """Group of every step (step,) between `cuts`, and what these groups cost ([layer]).

    Parameters
    ----------
    cost
        ([layer, ]first, last) as of `costs.group_costs.run_costs`.
    cuts
        As of `groups`; None: every step its own.

    Raises
    ------
    MissingError
        A cut is not the label of a step after the first.
    """
    labels = [] if cuts == "static" else dataset["step"].values[1:] if cuts is None else cuts
    parts = step_groups(dataset, [int(label) for label in labels])
    number = np.repeat(np.arange(len(parts)), [part.stop - part.start for part in parts])
    group = xr.DataArray(number, dims="step")
    core = (("first", "last"), ("step",))
    return group, over(total_cost, cost, group, core=core)


def _check(count: int | None, steps: int) -> None:
    if count is not None and not 1 <= count <= steps:
        raise TaqError(problem(f"{steps} steps make 1 to {steps} groups", found=str(count)))


def _partitions(
    dataset: xr.Dataset, cost: xr.DataArray, path: xr.DataArray, edges: Sequence[float]
) -> tuple[dict[str, xr.DataArray], dict[str, xr.DataArray]]:
    steps = dataset.sizes["step"]
    sizes = {"groups": steps, "step": steps}
    pair = (("first", "last"),)
    errors, best = over(
        optimal,
        cost,
        core=pair,
        out=(("groups",), ("groups", "step")),
        dtypes=(np.float64, np.int64),
        sizes=sizes,
    )
    merged = over(
        clustered,
        path,
        core=(("position", "feature"),),
        out=(("groups", "step"),),
        dtypes=(np.int64,),
        sizes=sizes,
    )
    priced = over(total_cost, cost, merged, core=(*pair, ("groups", "step")), out=(("groups",),))
    curves = {"optimal_error": errors, "cluster_error": priced}
    partitions = {"optimal": best, "cluster": merged}
    if "sigma" in dataset.variables:
        sigma = dataset["sigma"].astype(np.float64)
        bucket = over(
            bucketed,
            sigma.drop_vars(list(sigma.coords)),
            core=(("step",),),
            out=(("step",),),
            dtypes=(np.int64,),
            edges=tuple(edges),
        )
        partitions["sigma"] = bucket
        curves["sigma_error"] = over(total_cost, cost, bucket, core=(*pair, ("step",)))
    return curves, partitions


def _chosen(
    curves: dict[str, xr.DataArray],
    partitions: dict[str, xr.DataArray],
    method: Method,
    count: int | None,
    tolerance: float | None,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Group of every step and the number of groups; -1 and 0 where the error is unknown."""
    by_count = method in ("optimal", "cluster")
    group: xr.DataArray = over(
        _choose,
        curves[f"{method}_error"],
        partitions[method],
        core=(("groups",), ("groups", "step")) if by_count else ((), ("step",)),
        out=(("step",),),
        dtypes=(np.int64,),
        count=count,
        tolerance=tolerance,
        by_count=by_count,
    )
    return group, group.max("step") + 1


def _choose(
    error: Array, partition: Array, *, count: int | None, tolerance: float | None, by_count: bool
) -> Array:
    if not by_count:
        return np.where(np.isnan(error)[..., None], -1, partition)
    if count is None:
        number = (error <= error[..., -1:] * (1 + (tolerance or 0) + TIE)).argmax(axis=-1)
    else:
        number = np.full(error.shape[:-1], count - 1)
    wide = np.broadcast_to(partition, (*error.shape, partition.shape[-1]))
    group = np.take_along_axis(wide, number[..., None, None], axis=-2)[..., 0, :]
    return np.where(np.isnan(error[..., :1]), -1, group)

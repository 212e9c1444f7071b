"""Groups of neighbouring steps that share a clip range, and what sharing costs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np
import xarray as xr

from taqstore.analysis.inputs import Array, Bounds, finish, over, require
from taqstore.analysis.pooled_bins import common_bins
from taqstore.analysis.scale import checked_scheme, quantizers
from taqstore.errors import TaqError, problem
from taqstore.partition import bucketed, clustered, optimal, total_cost
from taqstore.search import (
    Grid,
    Scheme,
    best_quantizer,
    clip_ends,
    error_table,
    occupied,
    window,
)
from taqstore.spread import Spread, row_slices

Method = Literal["optimal", "cluster", "sigma"]

_NAME = "groups"
SIGMA_EDGES = (0.3, 0.7)
"""Edges of the source's buckets: early above 0.7, mid, late below 0.3."""
_TABLE = 1 << 22  # float64 elements of an error table held at once: 32 MB


def groups(
    dataset: xr.Dataset,
    *,
    bits: int = 8,
    symmetric: bool = True,
    method: Method = "optimal",
    count: int | None = None,
    tolerance: float = 0.05,
    sigma_edges: Sequence[float] = SIGMA_EDGES,
    shared: bool = False,
) -> xr.Dataset:
    """Contiguous groups of steps, each with one clip range of least expected error.

    ``cost(i, j) = min over clip ranges of sum over steps i..j of the squared error``: histograms
    add, so errors under one candidate range do, and all ``n (n + 1) / 2`` costs come from one table
    (step, candidate). The candidates are a logarithmic grid (symmetric: 32 clip bounds per factor
    of two; affine: 4, at 17 places of zero). Three ways to cut:

    * `optimal`: dynamic programming, least total cost of contiguous groups (`partition`);
    * `cluster`: adjacency-constrained Ward clustering of log2 of each step's own best step size;
    * `sigma`: fixed buckets of sigma.

    Parameters
    ----------
    dataset
        Observations or a pooled source with histograms.
    bits, symmetric
        As in `scales`.
    method
        Which partition is given out; errors are given for all.
    count
        Number of groups for `optimal` and `cluster`; by default the least whose error is at most
        ``1 + tolerance`` times that of a range for every step.
    tolerance
        See `count`.
    sigma_edges
        Edges between the buckets of `sigma`.
    shared
        One partition for all layers of the group, by the mean over layers of error / mean(x^2).

    Returns
    -------
    Dataset
        (layer, groups): `optimal_error`, `cluster_error`, the expected squared error over all
        steps for 1 to n groups (as a share of mean(x^2) and without `layer` if `shared`); (layer):
        `sigma_error` with a coordinate sigma. (layer, step): `group`, -1 where nothing was counted;
        (layer): `group_count`; (step, layer): `lower`, `upper`, `step_size`, `zero_point` (and
        `alpha`) of the group of every step, searched to full resolution.

    Raises
    ------
    MissingError
        There are no histograms, or no sigma for `method="sigma"`.
    TaqError
        Options that make no sense.
    """
    _check(method, count, tolerance, dataset.sizes.get("step", 0))
    scheme = checked_scheme(bits, symmetric, False)
    require(dataset, ("step", "sigma") if method == "sigma" else ("step",), analysis=_NAME)
    counts, spread = common_bins(dataset, analysis=_NAME)
    cost, path = _costs(counts, spread, scheme, shared)
    curves, partitions = _partitions(dataset, cost, path, sigma_edges)
    group, number = _chosen(curves, partitions, method, count, tolerance)
    ranges = _ranges(counts, group, spread, scheme)
    result: dict[Hashable, xr.DataArray] = {
        **{str(name): error for name, error in curves.items()},
        "group": group,
        "group_count": number,
        **quantizers(ranges, scheme).transpose("step", ...),
    }
    return finish(
        xr.Dataset(result).assign_coords(groups=np.arange(1, dataset.sizes["step"] + 1)),
        dataset,
        _NAME,
        bits=bits,
        symmetric=symmetric,
        method=method,
        count=count,
        tolerance=tolerance if count is None else None,
        sigma_edges=list(sigma_edges),
        shared=shared,
    )


def _check(method: str, count: int | None, tolerance: float, steps: int) -> None:
    if method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise TaqError(problem(f"method {method!r} is not known", remedy=known))
    if count is not None and not 1 <= count <= steps:
        raise TaqError(problem(f"{steps} steps make 1 to {steps} groups", found=str(count)))
    if not tolerance >= 0:
        raise TaqError(problem("a tolerance is at least 0", found=str(tolerance)))


def _costs(
    counts: xr.DataArray, spread: Spread, scheme: Scheme, shared: bool
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean error of every run of steps as part of all values, and log2 step sizes as features."""
    steps = counts.sizes["step"]
    cost, power, path = over(
        _cost_kernel,
        counts,
        core=(("step", "bin"),),
        out=(("first", "last"), (), ("position",)),
        dtypes=(np.float64,) * 3,
        sizes={"first": steps, "last": steps, "position": steps},
        spread=spread,
        scheme=scheme,
    )
    if not shared:
        return cost, path.expand_dims("feature", -1)
    layers = [str(d) for d in path.dims if d != "position"]
    # A layer that is nowhere known has no say; one that is zero throughout has no error either.
    relative = (cost / power).where(power > 0, 0.0 * cost)
    flat = path.stack(feature=layers, create_index=False).fillna(0.0)
    return relative.mean(layers), flat.transpose("position", "feature")


def _cost_kernel(counts: Array, *, spread: Spread, scheme: Scheme) -> tuple[Array, Array, Array]:
    """Per layer: (first, last) mean errors, mean of x^2, log2 of each step's best step size."""
    *lead, steps, bins = counts.shape
    rows = counts.reshape(-1, steps, bins)
    cost = np.full((len(rows), steps, steps), np.nan)
    path = np.full((len(rows), steps), np.nan)
    for part in row_slices(len(rows), steps * bins, block=_TABLE):
        cost[part], path[part] = _run_costs(rows[part], spread, scheme)
    total = rows.sum(axis=(1, 2), dtype=np.float64)
    squares = rows.sum(axis=1, dtype=np.float64) @ spread.square()
    with np.errstate(invalid="ignore", divide="ignore"):
        cost, power = cost / total[:, None, None], squares / total
    shape = tuple(lead)
    return cost.reshape(*shape, steps, steps), power.reshape(shape), path.reshape(*shape, steps)


def _run_costs(rows: Array, spread: Spread, scheme: Scheme) -> tuple[Array, Array]:
    """Summed errors (layer, first, last) of runs of steps, and (layer, step) log2 step sizes."""
    layers, steps, bins = rows.shape
    flat = rows.reshape(-1, bins)
    widest = scheme.covering(*occupied(flat, spread))
    cost = np.zeros((layers, steps, steps))
    cost[~np.isfinite(widest).reshape(layers, steps).any(axis=1)] = np.nan
    path = np.zeros((layers, steps))
    some = widest > 0
    if not some.any():
        return cost, path
    grid, octave, outside = _grid(np.where(some, widest, np.nan).reshape(layers, steps), scheme)
    table = error_table(flat, spread, grid.quantizers(scheme)).reshape(layers, steps, -1)
    table[np.broadcast_to(outside[:, None], table.shape)] = np.inf
    for first in range(steps):
        run = np.zeros(table[:, 0].shape)
        for last in range(first, steps):
            run += table[:, last]
            cost[:, first, last] += run.min(axis=-1)
    path = octave[table.argmin(axis=-1)] / grid.per_octave
    return cost, path


def _grid(widest: Array, scheme: Scheme) -> tuple[Grid, Array, Array]:
    """Candidates for layers (layer, step), their octaves, and which are out of a layer's reach."""
    per_octave = scheme.per_octave
    known = np.isfinite(widest).any(axis=1)
    ends = [np.zeros(len(widest)), np.zeros(len(widest))]
    for end, reduce in zip(ends, (np.nanmin, np.nanmax), strict=True):
        end[known] = reduce(widest[known], axis=1)
    low, high = (np.where(known, end, ends[1].max()) for end in ends)
    first, last = window(low, per_octave)[0], window(high, per_octave)[1]
    places, _ = scheme.places()
    grid = Grid(np.arange(first.min(), last.max() + 1), per_octave, places)
    octave = np.repeat(grid.octave[::-1], len(places))
    return grid, octave, (octave < first[:, None]) | (octave > last[:, None])


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
    tolerance: float,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Group of every step and the number of groups; -1 and 0 where the error is unknown."""
    by_count = method != "sigma"
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
    error: Array, partition: Array, *, count: int | None, tolerance: float, by_count: bool
) -> Array:
    if not by_count:
        return np.where(np.isnan(error)[..., None], -1, partition)
    if count is None:
        number = (error <= error[..., -1:] * (1 + tolerance)).argmax(axis=-1)
    else:
        number = np.full(error.shape[:-1], count - 1)
    wide = np.broadcast_to(partition, (*error.shape, partition.shape[-1]))
    group = np.take_along_axis(wide, number[..., None, None], axis=-2)[..., 0, :]
    return np.where(np.isnan(error[..., :1]), -1, group)


def _ranges(counts: xr.DataArray, group: xr.DataArray, spread: Spread, scheme: Scheme) -> Bounds:
    lower, upper = over(
        _group_ranges,
        counts,
        group,
        core=(("step", "bin"), ("step",)),
        out=(("step",), ("step",)),
        dtypes=(np.float64,) * 2,
        spread=spread,
        scheme=scheme,
    )
    return Bounds(lower, upper)


def _group_ranges(
    counts: Array, group: Array, *, spread: Spread, scheme: Scheme
) -> tuple[Array, Array]:
    """Best range of the summed histogram of each group, at every step of it."""
    number = np.broadcast_to(group, counts.shape[:-1])
    member = number[..., None, :] == np.arange(counts.shape[-2])[:, None]
    summed = member.astype(np.float64) @ counts.astype(np.float64)
    lower, upper = clip_ends(best_quantizer(summed, spread, scheme), scheme)
    known = number >= 0
    index = np.where(known, number, 0)
    ends = (np.take_along_axis(end, index, axis=-1) for end in (lower, upper))
    low, high = (np.where(known, end, np.nan) for end in ends)
    return low, high

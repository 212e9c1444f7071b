"""Costs of runs of neighbouring steps that share a clip range, and the ranges of groups of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.known import outermost
from taqstore.analysis.shared.inputs import Array, Bounds, joined, over
from taqstore.quantization.candidates import Grid, Scheme, window
from taqstore.quantization.counts import Part, in_order, occupied, parts
from taqstore.quantization.octave_search import run_table
from taqstore.quantization.octaves import Octaves, product
from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.search import best_quantizer, clip_ends, error_table
from taqstore.quantization.spread import Spread, row_slices

_TABLE = 1 << 22  # float64 elements of an error table held at once: 32 MB

_PRODUCT = 1 << 13  # elements of errors multiplied at once, all steps of a layer together


@dataclass(frozen=True)
class Histograms:
    """Counts (step, ..., bin) on common bins, and known values (step, ..., value) if there are any.

    See `pooled_bins.common_bins` and `known.known_values`.
    """

    counts: xr.DataArray
    spread: Spread
    known: list[xr.DataArray]

    @property
    def core(self) -> tuple[tuple[str, str], ...]:
        """Core dims of `counts` and `known`."""
        return (("step", "bin"), *[("step", "value")] * len(self.known))


def run_costs(
    histograms: Histograms, scheme: Scheme, *, shared: bool
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean error of every run of steps as part of all values, and features for clustering.

    Parameters
    ----------
    shared
        One cost for all layers: the mean of error / mean(x^2).

    Returns
    -------
    cost
        ([layer, ]first, last); NaN where nothing was counted.
    path
        ([layer, ]position, feature): log2 of the best step size of every step.
    """
    return told_costs(*layer_costs(histograms, scheme), shared=shared)


def layer_costs(
    histograms: Histograms, scheme: Scheme
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """What `run_costs` tells, of every layer: (layer, first, last), (layer), (layer, position).

    Costs, mean of x^2, log2 of the best step size of every step.
    """
    steps = histograms.counts.sizes["step"]
    cost, power, path = over(
        _cost_kernel,
        histograms.counts,
        *histograms.known,
        core=histograms.core,
        out=(("first", "last"), (), ("position",)),
        dtypes=(np.float64,) * 3,
        sizes={"first": steps, "last": steps, "position": steps},
        spread=histograms.spread,
        scheme=scheme,
    )
    return cost, power, path


def told_costs(
    cost: xr.DataArray, power: xr.DataArray, path: xr.DataArray, *, shared: bool
) -> tuple[xr.DataArray, xr.DataArray]:
    """`run_costs` of what `layer_costs` told."""
    if not shared:
        return cost, path.expand_dims("feature", -1)
    layers = [str(d) for d in path.dims if d != "position"]
    # A layer that is nowhere known has no say; one that is zero throughout has no error either.
    relative = joined((cost / power).where(power > 0, 0.0 * cost), layers)
    flat = path.stack(feature=layers, create_index=False).fillna(0.0)
    return relative.mean(layers), flat.transpose("position", "feature")


def _cost_kernel(
    counts: Array, *known: Array, spread: Spread, scheme: Scheme
) -> tuple[Array, Array, Array]:
    """Per layer: (first, last) mean errors, mean of x^2, log2 of each step's best step size."""
    *lead, steps, bins = counts.shape
    rows = counts.reshape(-1, steps, bins)
    cost = np.full((len(rows), steps, steps), np.nan)
    path = np.full((len(rows), steps), np.nan)
    squares = np.zeros(len(rows))
    values = known[0].reshape(*rows.shape[:2], -1) if known else None
    for part in row_slices(len(rows), steps * bins, block=_TABLE):
        some = None if values is None else values[part]
        cost[part], path[part], squares[part] = _run_costs(rows[part], spread, scheme, some)
    total = rows.sum(axis=(1, 2), dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cost, power = cost / total[:, None, None], squares / total
    shape = tuple(lead)
    return cost.reshape(*shape, steps, steps), power.reshape(shape), path.reshape(*shape, steps)


def _run_costs(
    rows: Array, spread: Spread, scheme: Scheme, known: Array | None
) -> tuple[Array, Array, Array]:
    """Summed errors (layer, first, last) of runs, (layer, step) log2 step sizes, sums of x^2."""
    layers, steps = rows.shape[:2]
    used = np.flatnonzero(rows.any(axis=(0, 1)))
    held = rows[..., used].reshape(layers * steps, len(used)).astype(np.float64)
    values = None if known is None else known.reshape(len(held), -1)
    pieces = parts(held, spread[used], values)
    widest = scheme.covering(*occupied(pieces))
    cost = np.zeros((layers, steps, steps))
    cost[~np.isfinite(widest).reshape(layers, steps).any(axis=1)] = np.nan
    path = np.zeros((layers, steps))
    each = sum(in_order(p.counts * p.spread.square()) for p in pieces)
    squares = np.reshape(each, (layers, steps)).sum(axis=1)
    some = widest > 0
    if not some.any():
        return cost, path, squares
    grid, octave, reach = _grid(np.where(some, widest, np.nan).reshape(layers, steps), scheme)
    table = _table(pieces, scheme, grid, octave, reach).reshape(layers, steps, -1)
    for first in range(steps):
        run = np.zeros(table[:, 0].shape)
        for last in range(first, steps):
            run += table[:, last]
            cost[:, first, last] += run.min(axis=-1)
    path = octave[table.argmin(axis=-1)] / grid.per_octave
    return cost, path, squares


def _table(pieces: list[Part], scheme: Scheme, grid: Grid, octave: Array, reach: Array) -> Array:
    """Summed errors ``(row, candidate)``, infinite out of reach ``(2, layer)``."""
    octaves = Octaves.of(pieces[0]) if scheme.symmetric else None
    if octaves is not None:
        each = reach.repeat(len(pieces[0].counts) // reach.shape[1], axis=1)
        return run_table(octaves, pieces[1:], scheme, each[0], each[1], octave)
    return _table_by_layer(pieces, grid.quantizers(scheme), octave, reach)


def _table_by_layer(
    pieces: list[Part], quantizers: Quantizer, octave: Array, reach: Array
) -> Array:
    """As `_table`, every layer with the bins and candidates it would have if it were alone.

    Sums are rounded as their terms are grouped: answers would else depend on the other layers.
    """
    held, bins = pieces[0].counts, pieces[0].spread
    errors = np.empty((len(octave), held.shape[1]))
    for some in row_slices(*errors.shape):
        errors[some] = bins.error(quantizers[some])
    table = np.full((len(held), len(octave)), np.inf)
    rows = len(held) // reach.shape[1]
    for layer, (first, last) in enumerate(reach.T):
        mine, tried = slice(layer * rows, (layer + 1) * rows), (octave >= first) & (octave <= last)
        used = np.flatnonzero(held[mine].any(axis=0))
        counts, mean = held[mine, used], errors[np.ix_(tried, used)]
        found = np.empty((rows, len(mean)))
        for some in row_slices(len(mean), len(used), block=_PRODUCT):
            found[:, some] = product(counts, mean[some].T)
        if len(pieces) > 1:
            found += error_table([part[mine] for part in pieces[1:]], quantizers[tried])
        table[mine, tried] = found
    return table


def _grid(widest: Array, scheme: Scheme) -> tuple[Grid, Array, Array]:
    """Candidates for layers (layer, step), their octaves, and the first and last of each layer."""
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
    return grid, octave, np.stack([first, last])


def group_ranges(histograms: Histograms, group: xr.DataArray, scheme: Scheme) -> Bounds:
    """Best range of the summed histogram of each group, at every step of it.

    Parameters
    ----------
    group
        (..., step): number of the group, -1 where it is not known.
    """
    lower, upper = over(
        _group_ranges,
        group,
        histograms.counts,
        *histograms.known,
        core=(("step",), *histograms.core),
        out=(("step",), ("step",)),
        dtypes=(np.float64,) * 2,
        spread=histograms.spread,
        scheme=scheme,
    )
    return Bounds(lower, upper)


def _group_ranges(
    group: Array, counts: Array, *known: Array, spread: Spread, scheme: Scheme
) -> tuple[Array, Array]:
    *lead, steps, bins = counts.shape
    number = np.broadcast_to(group, (*lead, steps)).reshape(-1, steps)
    rows = counts.reshape(-1, steps, bins)
    values = known[0].reshape(len(rows), steps, -1) if known else None
    low, high = np.full(number.shape, np.nan), np.full(number.shape, np.nan)
    layer, of_group = np.nonzero(number[:, None] == np.arange(steps)[:, None])[:2]
    layer, of_group = np.unique(np.stack([layer, of_group]), axis=1)
    used = np.flatnonzero(rows.any(axis=(0, 1)))
    for part in row_slices(len(layer), steps * len(used), block=_TABLE):
        some, member = layer[part], number[layer[part]] == of_group[part, None]
        summed = _of_groups(rows, some, member, used)
        mine = None if values is None else _of_members(values[some], member)
        ends = clip_ends(best_quantizer(summed, spread[used], scheme, known=mine), scheme)
        at, step = np.nonzero(member)
        low[some[at], step], high[some[at], step] = (end[at] for end in ends)
    return low.reshape(*lead, steps), high.reshape(*lead, steps)


def _of_groups(rows: Array, layer: Array, member: Array, used: Array) -> Array:
    """Counts of groups of steps of layers, ``(group, bin)`` float64, of the bins that are `used`.

    Parameters
    ----------
    rows
        ``(layer, step, bin)``.
    member
        ``(group, step)``: whether a step of the layer of the group is of it.
    """
    summed = np.zeros((len(layer), len(used)))
    for step in range(rows.shape[1]):
        mine = np.flatnonzero(member[:, step])
        summed[mine] += rows[layer[mine], step][:, used]
    return summed


def _of_members(known: Array, member: Array) -> Array:
    """Known values of all steps of each group, ``(group, value)`` of ``(group, step, value)``."""
    mine = np.where(member[..., None], known, np.nan)
    return outermost(mine.reshape(len(member), -1))

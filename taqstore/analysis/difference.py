"""Two runs compared: ranges, shifts and distributions of each layer at each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.divergence import histogram_distances
from taqstore.analysis.shared.inputs import (
    Bounds,
    channel_bounds,
    finish,
    histogram_bins,
    observed_histogram,
    over,
    quotient,
    require,
    tensor_bounds,
)
from taqstore.asked import meant
from taqstore.errors import LayoutError, MissingError, problem
from taqstore.statistics.histogram import coarsen
from taqstore.store.given import handed

_NAME = "difference"
_LABELS = ("image", "batch", "step", "layer", "projection", "boundary")
_PLACES = ("step", "layer", "projection", "boundary", "image", "batch")


@handed(blocks=True)
def difference(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """What moved from one run to another, at the steps and layers both have.

    Parameters
    ----------
    first, second
        Groups of one kind from two stores: observations, or one pooled source. All batches of a
        run count together, so runs of different length compare.

    Returns
    -------
    Dataset over (step, layer)
        `range_ratio`, `alpha_ratio`: tensor range and absmax, second over first.
        `channel_range_log2`: largest ``|log2|`` over channels of the ratio of ranges.
        `shift_drift`: largest move over channels of the shift (stored, or the midpoint of the
        extrema) in shares of the first run's channel range. With histograms: `jensen_shannon`
        (bits, 0 to 1), `wasserstein` (in the unit of the values) and `wasserstein_share` of the
        first run's tensor range. What a source does not hold is left out.

    Raises
    ------
    MissingError
        No step or layer in common, or neither extrema nor histograms.
    LayoutError
        The channels differ.
    """
    left, right = _matched(first, second)
    found = {**_ranges(left, right), **_distributions(left, right)}
    if not found:
        require(left, ("min", "max"), ("avg_min", "avg_max"), ("histogram",), analysis=_NAME)
    return _stamped(xr.Dataset(found), first, second, _NAME)


@handed(blocks=True)
def variable_difference(first: xr.Dataset, second: xr.Dataset, variable: str) -> xr.Dataset:
    """Any numeric variable of two groups, label by label.

    Returns
    -------
    Dataset
        Over what labels it has of step, layer, boundary, image and batch: `difference_max` and
        `difference_mean` of ``|second - first|``, and `difference_relative`,
        ``||second - first|| / ||first||``.

    Raises
    ------
    MissingError
        A group lacks the variable, or they have no label in common.
    LayoutError
        The other dimensions differ in size.
    """
    for dataset in (first, second):
        if variable not in dataset.variables:
            remedy = meant(variable, dataset.data_vars)
            raise MissingError(problem(f"no variable {variable!r}", remedy=remedy))
    left, right = _matched(first[[variable]], second[[variable]])
    a, b = (side[variable].astype(np.float64) for side in (left, right))
    inner = [dim for dim in a.dims if dim not in _PLACES]
    gap = abs(b - a)
    result = xr.Dataset(
        {
            "difference_max": gap.max(inner, skipna=False),
            "difference_mean": gap.mean(inner, skipna=False),
            "difference_relative": quotient(_norm(gap, inner), _norm(a, inner)),
        }
    )
    return _stamped(result, first, second, _NAME, variable=variable)


def _norm(values: xr.DataArray, dims: list[Any]) -> xr.DataArray:
    return (values**2).sum(dims, skipna=False) ** 0.5


def _stamped(
    result: xr.Dataset, first: xr.Dataset, second: xr.Dataset, name: str, **parameters: Any
) -> xr.Dataset:
    other = second.attrs.get("store_digest")
    return finish(result, first, name, second_store_digest=other, **parameters)


def _matched(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both at the labels they share; other dimensions must have equal sizes."""
    left, right = first, second
    for dim in _LABELS:
        if dim not in first.dims or dim not in second.dims or dim in _repeated(first, second):
            continue
        common = np.intersect1d(first[dim].values, second[dim].values)
        if not len(common):
            raise MissingError(
                problem(
                    f"the two stores have no {dim} in common",
                    found=f"{_brief(first[dim])} and {_brief(second[dim])}",
                )
            )
        # In the first store's order: layers are not sorted by name.
        kept = [value for value in first[dim].values if value in common]
        left, right = left.sel({dim: kept}), right.sel({dim: kept})
    return left, _checked(left, right)


def _repeated(first: xr.Dataset, second: xr.Dataset) -> tuple[str, ...]:
    """Batches of observed statistics are pooled, not matched."""
    pooled = {"min", "max", "histogram"} & set(first.data_vars) & set(second.data_vars)
    return ("batch",) if len(pooled) > 1 else ()


def _checked(left: xr.Dataset, right: xr.Dataset) -> xr.Dataset:
    for dim in sorted({*map(str, left.dims)} & {*map(str, right.dims)}):
        if dim in ("batch", "slot", "bin", "edge", "image"):
            continue
        if left.sizes[dim] != right.sizes[dim]:
            found = f"{left.sizes[dim]} and {right.sizes[dim]}"
            raise LayoutError(problem(f"the two stores differ in {dim}s", found=found))
    return right


def _brief(labels: xr.DataArray) -> str:
    values = [str(value) for value in labels.values[:4]]
    return ", ".join(values) + (", ..." if labels.size > 4 else "")


def _ranges(left: xr.Dataset, right: xr.Dataset) -> dict[str, xr.DataArray]:
    pairs = ({"min", "max"}, {"avg_min", "avg_max"})
    both = set(left.data_vars) & set(right.data_vars)
    if not any(pair <= both for pair in pairs):
        return {}
    tensors = [tensor_bounds(side, analysis=_NAME) for side in (left, right)]
    channels = [channel_bounds(side, analysis=_NAME) for side in (left, right)]
    width, other = (_width(bounds) for bounds in channels)
    moved = abs(_shift(right, channels[1]) - _shift(left, channels[0]))
    # A channel that was dead has no range to be a share of: any move is infinitely far.
    share = quotient(moved, width, empty=np.inf).where(moved != 0, 0.0)
    apart = over(_log2_ratio, other, width, core=((), ()))
    return {
        "range_ratio": quotient(_width(tensors[1]), _width(tensors[0])),
        "alpha_ratio": quotient(tensors[1].absmax, tensors[0].absmax),
        "channel_range_log2": apart.max("channel", skipna=False),
        "shift_drift": share.max("channel", skipna=False),
    }


def _log2_ratio(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """``|log2(second / first)|``: 0 for a channel dead in both, infinite for one dead in one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(np.log2(second) - np.log2(first))
    return np.where(second == first, 0.0, apart)


def _width(bounds: Bounds) -> xr.DataArray:
    return bounds.upper - bounds.lower


def _shift(dataset: xr.Dataset, bounds: Bounds) -> xr.DataArray:
    if "shift" in dataset.data_vars:
        return dataset["shift"].astype(np.float64)
    return (bounds.lower + bounds.upper) / 2


def _distributions(left: xr.Dataset, right: xr.Dataset) -> dict[str, xr.DataArray]:
    names = {"histogram", "hist_counts"} & set(left.data_vars) & set(right.data_vars)
    if not names:
        return {}
    sides = _common_bins(left, right)
    # Each side's bins are an axis of its own, even where they are equally many.
    arrays = [
        array.rename({str(array.dims[-1]): f"{array.dims[-1]}_{number}"})
        for number, side in enumerate(sides)
        for array in side
    ]
    divergence, distance = over(
        histogram_distances,
        *arrays,
        core=[(str(array.dims[-1]),) for array in arrays],
        out=((), ()),
        dtypes=(np.float64, np.float64),
    )
    found = {"jensen_shannon": divergence, "wasserstein": distance}
    if {"min", "max"} <= set(left.data_vars) or {"avg_min", "avg_max"} <= set(left.data_vars):
        width = _width(tensor_bounds(left, analysis=_NAME))
        found["wasserstein_share"] = quotient(distance, width)
    return found


def _common_bins(left: xr.Dataset, right: xr.Dataset) -> list[tuple[xr.DataArray, xr.DataArray]]:
    """Counts and edges of both, bins last; finer bit histograms are coarsened to the other's."""
    found = [observed_histogram(side) for side in (left, right)]
    if found[0] and found[1] and found[0][1].dtype == found[1][1].dtype:
        bits = min(layout.mantissa_bits for _, layout in (found[0], found[1]))
        return [_coarse(counts, layout, bits) for counts, layout in (found[0], found[1])]
    bins = (histogram_bins(side, analysis=_NAME) for side in (left, right))
    return [(b.counts.transpose(..., "bin"), b.edges.transpose(..., "edge")) for b in bins]


def _coarse(counts: xr.DataArray, layout: Any, bits: int) -> tuple[xr.DataArray, xr.DataArray]:
    edges = type(layout)(layout.dtype, bits).edges()

    def summed(values: np.ndarray) -> np.ndarray:
        return coarsen(values, layout, bits)[0]

    fewer = over(
        summed,
        counts,
        core=(("bin",),),
        out=(("coarse_bin",),),
        dtypes=(np.int64,),
        sizes={"coarse_bin": len(edges) - 1},
    )
    return fewer.rename(coarse_bin="bin"), xr.DataArray(edges, dims="edge")

"""What analyses ask of a Dataset, and what they leave on their results.

An analysis works on observations (`activations/<site>`) and on every pooled source, each of which
spells its statistics in its own way. The functions here find the statistic, or say which variable
is missing and which groups hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import xarray as xr

from taqstore.analysis.shared.results import document
from taqstore.errors import MissingError, problem
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.statistics.histogram import Layout, everywhere
from taqstore.statistics.selected import outermost_of

Array = np.ndarray[Any, Any]

POST_GELU_SITE = "mlp.fc2"
BIN_NUMBER = "bin_number"
"""Coordinate of histograms that were cut to the bins which hold anything: which these are."""


class Bounds(NamedTuple):
    """Lower and upper ends of a range, float64."""

    lower: xr.DataArray
    upper: xr.DataArray

    @property
    def absmax(self) -> xr.DataArray:
        """``max(|lower|, |upper|)``."""
        return cast(xr.DataArray, np.maximum(abs(self.lower), abs(self.upper)))

    def over_channels(self) -> Bounds:
        """Bounds of the whole tensor; NaN where a channel is unknown."""
        return Bounds(
            self.lower.min("channel", skipna=False), self.upper.max("channel", skipna=False)
        )


class Symmetric(Bounds):
    """Bounds ``(-alpha, alpha)`` of an alpha that is not negative."""

    __slots__ = ()

    @classmethod
    def of(cls, alpha: xr.DataArray) -> Symmetric:
        """Those of a clip bound."""
        return cls(-alpha, alpha)

    @property
    def absmax(self) -> xr.DataArray:
        """Alpha."""
        return self.upper


class Bins(NamedTuple):
    """Histogram counts (..., bin) and the edges (..., edge) they stand between."""

    counts: xr.DataArray
    edges: xr.DataArray


def first_complete(dataset: xr.Dataset, alternatives: Sequence[Sequence[str]]) -> Sequence[str]:
    """First of `alternatives` whose variables the dataset all has; empty if none is complete."""
    present = {*dataset.variables, *dataset.dims}
    return next((names for names in alternatives if present.issuperset(names)), ())


def require(dataset: xr.Dataset, *alternatives: Sequence[str], analysis: str) -> Sequence[str]:
    """First of `alternatives` whose variables the dataset all has.

    Raises
    ------
    MissingError
        None is complete; the message names what is missing and which groups have it.
    """
    if names := first_complete(dataset, alternatives):
        return names
    wanted = " or ".join(" with ".join(names) for names in alternatives)
    groups = dict.fromkeys(g for names in alternatives for g in _having(names))
    raise MissingError(
        problem(
            f"{analysis} needs {wanted}",
            found=", ".join(map(str, dataset.data_vars)) or "no variables",
            remedy=f"use {' or '.join(groups)}" if groups else "",
        )
    )


def _having(names: Sequence[str]) -> list[str]:
    """Groups that hold every one of `names` (variables not listed are in all of them)."""
    every = {name for row in STATISTICS.values() for name in row.holds}
    wanted = every.intersection(names)
    site = POST_GELU_SITE if "shift" in names else "<site>"
    having = (row.prefix for row in STATISTICS.values() if wanted.issubset(row.holds))
    return [f"{prefix}/{site}" for prefix in having] if wanted else []


def is_post_gelu(dataset: xr.Dataset, site: str = "") -> bool:
    """Whether these are inputs of `mlp.fc2`: by `site`, or else by the shift only they have."""
    named = site or str(dataset.attrs.get("site", ""))
    if named:
        return named == POST_GELU_SITE or named.startswith(POST_GELU_SITE + ".")
    return "shift" in dataset.variables


def channel_bounds(dataset: xr.Dataset, *, analysis: str) -> Bounds:
    """Extrema per (step, layer, channel): over all batches, or as the pooled source has them."""
    low, high = require(dataset, ("min", "max"), ("avg_min", "avg_max"), analysis=analysis)
    return _over_batches(dataset[low], dataset[high])


def tensor_bounds(dataset: xr.Dataset, *, analysis: str) -> Bounds:
    """Extrema per (step, layer), from the rollups where there are any."""
    if {"tensor_min", "tensor_max"} <= set(dataset.data_vars):
        return _over_batches(dataset["tensor_min"], dataset["tensor_max"])
    return channel_bounds(dataset, analysis=analysis).over_channels()


def tensor_alpha(dataset: xr.Dataset, *, analysis: str) -> xr.DataArray:
    """Absmax clip bound per (step, layer): stored `alpha` or `tensor_absmax`, or from extrema."""
    for name in ("alpha", "tensor_absmax"):
        if name in dataset.data_vars:
            return dataset[name].astype(np.float64)
    rollups = ("tensor_min", "tensor_max")
    if set(rollups) <= set(dataset.data_vars) and "batch" in dataset["tensor_min"].dims:
        alpha: xr.DataArray = over(
            _absmax_of_batches,
            *(joined(dataset[name], ("batch",)) for name in rollups),
            core=(("batch",),) * 2,
        )
        return alpha
    return tensor_bounds(dataset, analysis=analysis).absmax


def _absmax_of_batches(lower: Array, upper: Array) -> Array:
    # NaN is a batch never written, as in `_over_batches`.
    low, high = (end.astype(np.float64) for end in (lower.min(axis=-1), upper.max(axis=-1)))
    return np.asarray(np.maximum(np.abs(low), np.abs(high)))


def _over_batches(lower: xr.DataArray, upper: xr.DataArray) -> Bounds:
    if "batch" in lower.dims:
        # NaN is a batch never written: what it would have added is unknown, not nothing.
        lower, upper = lower.min("batch", skipna=False), upper.max("batch", skipna=False)
    return Bounds(lower.astype(np.float64), upper.astype(np.float64))


def is_observed(dataset: xr.Dataset) -> bool:
    """Whether there is a histogram of observations; nothing is read."""
    histogram = dataset.data_vars.get("histogram")
    return histogram is not None and "layout" in {**dataset.attrs, **histogram.attrs}


def observed_histogram(dataset: xr.Dataset) -> tuple[xr.DataArray, Layout] | None:
    """Counts of all batches with their bit layout, or None where bins are of another kind."""
    if not is_observed(dataset):
        return None
    histogram = dataset["histogram"]
    attrs = {**dataset.attrs, **histogram.attrs}
    if "batch" in histogram.dims:
        histogram = histogram.sum("batch", dtype=np.int64)
    layout = Layout(str(attrs["layout"]), int(attrs["mantissa_bits"]))
    if BIN_NUMBER in histogram.coords:
        layout = layout.keeping(histogram[BIN_NUMBER].values)
    return histogram, layout


def histogram_bins(dataset: xr.Dataset, *, analysis: str) -> Bins:
    """Counts and edges of whichever histogram the dataset has.

    Raises
    ------
    MissingError
        It has none.
    """
    observed = observed_histogram(dataset)
    if observed is not None:
        counts, layout = observed
        if layout.kept:
            counts = over(
                everywhere,
                counts.drop_vars(BIN_NUMBER),
                core=(("bin",),),
                out=(("every",),),
                layout=layout,
            ).rename(every="bin")
        return Bins(counts, xr.DataArray(layout.edges(), dims="edge"))
    names = require(
        dataset, ("hist_counts", "hist_edges"), ("histogram", "bin_edges"), analysis=analysis
    )
    counts, edges = (dataset[name] for name in names)
    return Bins(counts, edges.astype(np.float64))


def over(
    kernel: Callable[..., Any],
    *arrays: xr.DataArray,
    core: Sequence[Sequence[str]],
    out: Sequence[Sequence[str]] = ((),),
    dtypes: Sequence[type] = (np.float64,),
    sizes: dict[str, int] | None = None,
    **options: Any,
) -> Any:
    """Apply a NumPy kernel over core dims, which become its last axes; lazy on dask arrays.

    The blocks of the other dims stay as they are, so a kernel runs once per block, never once per
    layer.

    Parameters
    ----------
    kernel
        Takes arrays with core dims last, gives one array per entry of `out`.
    core, out
        Core dims of each input and output.
    dtypes
        Dtype of each output.
    sizes
        Sizes of output dims that no input has.
    options
        Keyword arguments of the kernel.
    """
    return xr.apply_ufunc(
        kernel,
        *arrays,
        input_core_dims=core,
        output_core_dims=out,
        kwargs=options,
        dask="parallelized",
        output_dtypes=list(dtypes),
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": sizes or {}},
    )


def singly(
    kernel: Callable[..., Any],
    *arrays: xr.DataArray,
    core: Sequence[Sequence[str]],
    out: Sequence[Sequence[str]],
    dtypes: Sequence[type],
    **options: Any,
) -> Any:
    """As `over`, with the kernel called for one element of the other dims (a layer) at a time.

    What it makes besides its results is then small, however large a block is.
    """
    ranks = tuple(len(dims) for dims in core)
    whole = (joined(array, dims) for array, dims in zip(arrays, core, strict=True))
    how: Any = {"called": kernel, "ranks": ranks, "given": options}
    return over(_each, *whole, core=core, out=out, dtypes=dtypes, **how)


def joined(array: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """The array in one block along some dims.

    Left to itself dask cuts the other dimensions up when it joins blocks of core dims.
    """
    blocks = {dim: -1 for dim in dims if len(array.chunksizes.get(dim, ())) > 1}
    return array.copy(data=array.variable.chunk(blocks).data) if blocks else array


def steps_first(arrays: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Results of `singly` with the dimension `step`, where they have it, in front."""
    return {n: a.transpose("step", ..., missing_dims="ignore") for n, a in arrays.items()}


def _each(
    *arrays: Array, called: Callable[..., Any], ranks: tuple[int, ...], given: dict[str, Any]
) -> Any:
    leads = [array.shape[: array.ndim - rank] for array, rank in zip(arrays, ranks, strict=True)]
    lead = np.broadcast_shapes(*leads)
    if not all(lead):
        return called(*arrays, **given)
    wide = [
        np.broadcast_to(array, (*lead, *array.shape[array.ndim - rank :]))
        for array, rank in zip(arrays, ranks, strict=True)
    ]
    found: list[Array] = []
    for place in np.ndindex(lead):
        one = called(*(array[place] for array in wide), **given)
        one = [np.asarray(part) for part in (one if isinstance(one, tuple) else (one,))]
        found = found or [np.empty((*lead, *part.shape), part.dtype) for part in one]
        for whole, part in zip(found, one, strict=True):
            whole[place] = part
    return tuple(found) if len(found) > 1 else found[0]


def extrema_of(dataset: xr.Dataset, *, analysis: str) -> tuple[list[xr.DataArray], tuple[str, ...]]:
    """Extrema of channels as they are stored, and their dims ([batch, ]step, channel).

    Raises
    ------
    MissingError
        There are none.
    """
    low, high = require(dataset, ("min", "max"), ("avg_min", "avg_max"), analysis=analysis)
    dims = tuple(dim for dim in ("batch", "step", "channel") if dim in dataset[low].dims)
    return [dataset[low], dataset[high]], dims


def merged_ends(low: Array, high: Array) -> tuple[Array, Array]:
    """Extrema of all batches ``(..., step, channel)``, float64, of ``([batch, ]step, channel)``."""
    if low.ndim > 2:
        low, high = outermost_of(low), outermost_of(high, largest=True)
    return low.astype(np.float64), high.astype(np.float64)


def quotient(part: xr.DataArray, whole: xr.DataArray, *, empty: float = np.nan) -> xr.DataArray:
    """``part / whole``, and `empty` where `whole` is 0; NaN where either is. Lazy, never warns."""
    ratio: xr.DataArray = over(_divided, part, whole, core=((), ()), empty=empty)
    return ratio


def _divided(part: Array, whole: Array, *, empty: float) -> Array:
    shape = np.broadcast_shapes(part.shape, whole.shape)
    unknown = np.isnan(part) | np.isnan(whole)
    ratio = np.where(unknown, np.nan, np.full(shape, empty))
    return np.divide(part, whole, out=ratio, where=whole != 0)


def mean_known(values: Array) -> Array:
    """Mean over the last axis without NaN, each row summed as `np.mean` sums a vector of it."""
    rows = np.ascontiguousarray(values, dtype=np.float64)
    known = ~np.isnan(rows)
    mean = np.asarray(rows.mean(axis=-1)) if rows.shape[-1] else np.full(rows.shape[:-1], np.nan)
    for index in zip(*np.nonzero(~known.all(axis=-1) & known.any(axis=-1)), strict=True):
        mean[index] = rows[index][known[index]].mean()
    return mean


def finish(result: xr.Dataset, source: xr.Dataset, analysis: str, **parameters: Any) -> xr.Dataset:
    """Stamp a result: the analysis, its parameters, the store's digest, and what variables mean.

    Parameters that are None are left out; booleans become 0 and 1, which every file format holds.
    """
    stamped = {
        key: int(value) if isinstance(value, bool) else value
        for key, value in parameters.items()
        if value is not None
    }
    digest = {k: source.attrs[k] for k in ("store_digest",) if k in source.attrs}
    return document(result).assign_attrs({"analysis": analysis, **stamped, **digest})

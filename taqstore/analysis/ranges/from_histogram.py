"""Clip ranges from histograms: percentiles, least expected error, least divergence."""

from __future__ import annotations

from typing import cast

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip, calls
from taqstore.analysis.ranges.known import known_values
from taqstore.analysis.ranges.percentile import (
    absolute_percentile,
    percentile_bounds,
    true_extrema,
    within,
    within_absmax,
)
from taqstore.analysis.shared.inputs import (
    BIN_NUMBER,
    Array,
    Bounds,
    Symmetric,
    is_observed,
    observed_histogram,
    over,
    require,
    tensor_bounds,
)
from taqstore.analysis.shared.pooled_bins import common_bins
from taqstore.errors import MissingError, problem
from taqstore.quantization.counts import Part, occupied
from taqstore.quantization.entropy import entropy_range, linear_counts
from taqstore.quantization.search import Scheme, best_quantizer, clip_ends
from taqstore.quantization.spread import Spread
from taqstore.statistics.histogram import Layout, absolute_quantile, quantile

_OF_COUNTS = ("histogram", "bin_edges", BIN_NUMBER)


def percentile(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """Percentile of |x| or of both tails; see `clip.clip_range`."""
    view, percent = all_steps(dataset) if static else dataset, cast(float, clip.percentile)
    if scheme.symmetric:
        alpha = absolute_percentile(view, percent, analysis=analysis)
        # A signed percentile, which is what pooled sources have, may be negative.
        return Symmetric.of(alpha) if is_observed(view) else Bounds(-alpha, alpha)
    return percentile_bounds(view, percent, analysis=analysis)


def all_steps(dataset: xr.Dataset) -> xr.Dataset:
    """The histogram summed over steps, with the extrema of what it counts where these are known.

    Raises
    ------
    MissingError
        Bins differ from step to step, so that histograms do not add.
    """
    if "histogram" not in dataset.data_vars:
        raise MissingError(
            problem(
                "a percentile over several steps needs histograms that add",
                found=", ".join(map(str, dataset.data_vars)),
                remedy="use activations/<site> or pooled/postgelu/<site>",
            )
        )
    kept = dataset.drop_vars([n for n in dataset.variables if n not in _OF_COUNTS])
    summed = dataset["histogram"].sum("step", dtype=np.int64, keep_attrs=True)
    ends = true_extrema(dataset)
    whole = kept.drop_vars("histogram").assign(histogram=summed)
    if ends is None:
        return whole
    return whole.assign(tensor_min=ends.lower.min("step"), tensor_max=ends.upper.max("step"))


def mean_percentile(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """Mean over calls of their percentiles; see `clip.clip_range`."""
    require(dataset, ("batch", "histogram"), analysis=analysis)
    histogram = dataset["histogram"]
    attrs = {**dataset.attrs, **histogram.attrs}
    layout = Layout(str(attrs["layout"]), int(attrs["mantissa_bits"]))
    share = cast(float, clip.percentile) / 100
    shares = [share] if scheme.symmetric else [round(1.0 - share, 12), share]
    per_call = over(
        absolute_quantile if scheme.symmetric else quantile,
        histogram,
        core=(("bin",),),
        out=(("tail",),),
        sizes={"tail": len(shares)},
        layout=layout,
        q=np.array(shares),
    )
    ends = true_extrema(dataset, per_call=True)
    keep = within_absmax if scheme.symmetric else within
    tails = [
        keep(per_call.isel(tail=i), ends, 100 * q).mean(calls(static), skipna=False)
        for i, q in enumerate(shares)
    ]
    return Bounds(-tails[-1] if scheme.symmetric else tails[0], tails[-1])


def mse(dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str) -> Bounds:
    """Range of least expected squared error; see `clip.clip_range`."""
    return _of_least_error(dataset, scheme, 2.0, static=static, analysis=analysis)


def l2_4(dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str) -> Bounds:
    """Range of least expected ``|x - q(x)|**2.4``; see `clip.clip_range`."""
    return _of_least_error(dataset, scheme, 2.4, static=static, analysis=analysis)


def _of_least_error(
    dataset: xr.Dataset, scheme: Scheme, power: float, *, static: bool, analysis: str
) -> Bounds:
    counts, spread = _counted(dataset, static, analysis)
    known = known_values(dataset, static=static)
    lower, upper = over(
        least_error,
        counts,
        *known,
        core=(("bin",), *[("value",)] * len(known)),
        out=((), ()),
        dtypes=(np.float64,) * 2,
        spread=spread,
        scheme=scheme,
        power=power,
    )
    return Symmetric(lower, upper) if scheme.symmetric else Bounds(lower, upper)


def entropy(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """Range of least KL divergence (`taqstore.quantization.entropy`); see `clip.clip_range`."""
    counts, spread = _counted(dataset, static, analysis)
    reach = _reach(dataset, static, analysis)
    lower, upper = over(
        _least_divergence,
        counts,
        *reach,
        core=(("bin",), *[()] * len(reach)),
        out=((), ()),
        dtypes=(np.float64,) * 2,
        spread=spread,
    )
    return Bounds(lower, upper)


def _counted(dataset: xr.Dataset, static: bool, analysis: str) -> tuple[xr.DataArray, Spread]:
    counts, spread = common_bins(dataset, analysis=analysis)
    return (counts.sum("step") if static else counts), spread


def _reach(dataset: xr.Dataset, static: bool, analysis: str) -> tuple[xr.DataArray, ...]:
    """True extrema where they belong to the values counted, which pooled averages do not."""
    if observed_histogram(dataset) is None:
        return ()
    bounds = tensor_bounds(dataset, analysis=analysis)
    if static:
        bounds = Bounds(
            bounds.lower.min("step", skipna=False), bounds.upper.max("step", skipna=False)
        )
    return tuple(bounds)


def least_error(
    counts: Array, *known: Array, spread: Spread, scheme: Scheme, power: float
) -> tuple[Array, Array]:
    """Ends of the range of least ``|x - q(x)|**power``; `known` is ``(..., value)``, or nothing."""
    values = known[0] if known else None
    best = best_quantizer(counts, spread, scheme, power=power, known=values)
    return clip_ends(best, scheme)


def _least_divergence(counts: Array, *reach: Array, spread: Spread) -> tuple[Array, Array]:
    rows = counts.reshape(-1, counts.shape[-1])
    least, most = (np.ravel(end) for end in reach) if reach else occupied([Part(rows, spread)])
    absmax = np.maximum(np.abs(least), np.abs(most))
    low, high = entropy_range(linear_counts(rows, spread, absmax), absmax)
    shape = counts.shape[:-1]
    return np.maximum(low, least).reshape(shape), np.minimum(high, most).reshape(shape)

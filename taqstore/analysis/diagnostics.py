"""Diagnostics of the post-GELU study: medians over channels, negative share, widest channels."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.outliers import TOP_FRACTION, widest
from taqstore.analysis.shared.inputs import (
    Array,
    extrema_of,
    finish,
    first_complete,
    merged_ends,
    over,
    require,
    singly,
    steps_first,
)
from taqstore.analysis.shared.merged import bounded_bins, moments
from taqstore.analysis.table import of_row
from taqstore.names import BINS, EXTREMA, MOMENTS
from taqstore.statistics.selected import median

_NAME = "diagnostics"


@of_row(_NAME)
def diagnostics(dataset: xr.Dataset) -> xr.Dataset:
    """Medians over channels, share of negative values and widest channels, as the source has them.

    The rules are those of the script that studied post-GELU tensors (Phase 2), and they serve any
    site. A channel's range is its maximum minus its minimum over all batches; outliers are the
    ``max(1, int(0.02 * channels))`` widest channels of a step. One rule differs: every bin below
    zero counts as negative, where the script left out the one just below it. A bin that straddles
    zero counts by the share of its width that lies below: values are taken as spread evenly inside
    it. In float-bit-prefix bins and in those of the script zero is an edge and the share is exact.

    Parameters
    ----------
    dataset
        Observations or a pooled source. What its statistics do not tell is left out.

    Returns
    -------
    Dataset
        From extrema, (step, layer): `step_range`, the median over channels of their ranges;
        (layer): `median_range` over steps and channels, `max_range`, `widest_count` (channels that
        are outliers at any step); (layer, channel): `widest_steps`, at how many steps it is one,
        and `widest_overall`, whether its range over all steps makes it one.
        From moments, (step, layer): `step_mean`, `step_std`, medians over channels; (layer):
        `median_mean`, `median_std`, their means over steps.
        From histograms, (step, layer): `negative_fraction` and `counted`; (layer):
        `negative_fraction_all`, all steps together, each weighted by what it counted. NaN where
        nothing was counted.
        From observations, (step, layer): `nonfinite_count`, values that are no numbers.

    Raises
    ------
    MissingError
        There are neither extrema nor moments nor histograms.
    """
    parts = {EXTREMA: _of_extrema, MOMENTS: _of_moments, BINS: _of_bins}
    found: dict[str, xr.DataArray] = {}
    for alternatives, part in parts.items():
        if first_complete(dataset, alternatives):
            found |= part(dataset)
    if "nonfinite" in dataset.data_vars:
        found |= _of_nonfinite(dataset)
    if not found:
        require(dataset, *EXTREMA, *MOMENTS, *BINS, analysis=_NAME)
    return finish(xr.Dataset(found), dataset, _NAME, top_fraction=TOP_FRACTION)


def _of_extrema(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    ends, dims = extrema_of(dataset, analysis=_NAME)
    names, out, dtypes = zip(*_OF_EXTREMA, strict=True)
    made = singly(_extrema_of_layer, *ends, core=(dims, dims), out=out, dtypes=dtypes)
    return steps_first(dict(zip(names, made, strict=True)))


# Results in their order: core dims and dtypes.
_OF_EXTREMA = (
    ("step_range", ("step",), np.float64),
    ("median_range", (), np.float64),
    ("max_range", (), np.float64),
    ("widest_count", (), np.int64),
    ("widest_steps", ("channel",), np.int64),
    ("widest_overall", ("channel",), bool),
)


def _extrema_of_layer(low: Array, high: Array) -> tuple[Array, ...]:
    """`_OF_EXTREMA` of extrema ``([batch, ]step, channel)``."""
    lower, upper = merged_ends(low, high)
    width = upper - lower
    is_widest = widest(width)
    return (
        _median(width),
        _median(width, axes=2),
        _largest(width),
        is_widest.any(axis=0).sum(axis=-1),
        is_widest.sum(axis=0),
        _widest_overall(lower, upper),
    )


def _of_moments(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    found = {}
    for name, moment in moments(dataset, analysis=_NAME).data_vars.items():
        middle = over(_median, moment, core=(("channel",),))
        found[f"step_{name}"] = middle
        found[f"median_{name}"] = over(_mean_over_steps, middle, core=_TABLE, out=(("layer",),))
    return found


def _of_bins(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    bins = bounded_bins(dataset, analysis=_NAME)
    below, counted = over(
        _below_zero,
        bins["counts"],
        bins["left"],
        bins["right"],
        core=(("bin",),) * 3,
        out=((), ()),
        dtypes=(np.float64, np.int64),
    )
    everything = counted.sum("step")
    total = over(_sum_over_steps, below, core=_TABLE, out=(("layer",),))
    return {
        "negative_fraction": below / counted.where(counted > 0),
        "negative_fraction_all": total / everything.where(everything > 0),
        "counted": counted,
    }


def _of_nonfinite(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    counts = dataset["nonfinite"]
    dims = [dim for dim in ("batch", "nonfinite_kind") if dim in counts.dims]
    return {"nonfinite_count": counts.sum(dims, dtype=np.int64)}


# Sums over steps take the whole table at once: in one order, however the steps are cut in blocks.
_TABLE = (("step", "layer"),)


def _sum_over_steps(table: Array) -> Array:
    total: Array = np.ascontiguousarray(table).sum(axis=-2)
    return total


def _mean_over_steps(table: Array) -> Array:
    """Mean of what is known, (..., step, layer) -> (..., layer); NaN where nothing is."""
    count = (~np.isnan(table)).sum(axis=-2)
    total = _sum_over_steps(np.nan_to_num(table, posinf=np.inf, neginf=-np.inf))
    mean: Array = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean


def _median(values: Array, *, axes: int = 1) -> Array:
    """Median over the last axes of what is known; NaN where nothing is."""
    rows = values.reshape(*values.shape[: values.ndim - axes], -1)
    middle = median(rows)
    some = np.isnan(middle) & ~np.isnan(rows).all(axis=-1)
    if some.any():
        with np.errstate(invalid="ignore"):
            middle[some] = np.nanmedian(rows[some], axis=-1)
    return middle


def _largest(values: Array) -> Array:
    """Largest known value over the last two axes; NaN where there is none."""
    largest: Array = np.fmax.reduce(values, axis=(-2, -1))
    return largest


def _widest_overall(lower: Array, upper: Array) -> Array:
    """Mask of the widest channels by their range over all steps, of ``(..., step, channel)``."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity is not known
        width: Array = np.fmax.reduce(upper, axis=-2) - np.fmin.reduce(lower, axis=-2)
    return widest(width)


def _below_zero(counts: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """How many values of ``(..., bin)`` lie below zero, and how many there are."""
    with np.errstate(invalid="ignore"):  # outermost bins may reach to infinity
        inside = -left / np.where(right > left, right - left, 1.0)
    share = np.where(left < 0, np.where(right > 0, inside, 1.0), 0.0)
    counted = counts.sum(axis=-1).astype(np.int64)
    below = np.ascontiguousarray(counts * share).sum(axis=-1)
    return np.where(counted > 0, below, 0.0), counted

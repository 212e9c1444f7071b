"""Outlier channels: by multiple of the median range, the widest of every step, and spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, channel_bounds, finish, over
from taqstore.analysis.shared.outlier_set import SPIKE_RATIO, above_median, set_measures
from taqstore.analysis.table import of_row
from taqstore.errors import MissingError, problem

_NAME = "outliers"

TOP_FRACTION = 0.02
_INT8_MAX = 127


@of_row(_NAME)
def outliers(
    dataset: xr.Dataset,
    *,
    threshold: float = 2.5,
    step: int | None = None,
    top_fraction: float = TOP_FRACTION,
    spike: float = SPIKE_RATIO,
) -> xr.Dataset:
    """Channels whose range stands out, with the multipliers that let them share a step size.

    Three rules. At one step: range above `threshold` times the median range over channels, none
    where that median is below 1e-6; outlier channels get ``max(1, round(step_size_outlier /
    step_size_normal))``, half to even, the others 1. At every step: the ``max(1, int(top_fraction *
    channels))`` widest channels; and isolated spikes, whose range is above `spike` times the 99th
    percentile over channels.

    How stable the set of the first rule is: the mean Jaccard index ``|A & B| / |A | B|`` over all
    pairs of steps, and of batches (each with its own extrema); two empty sets count as equal.

    Parameters
    ----------
    dataset
        Observations or a pooled source with extrema per channel.
    threshold
        Multiple of the median range.
    step
        Label of the step of the first rule; by default the middle one, ``step[len // 2]``.
    top_fraction
        Share of channels of the second rule.
    spike
        Multiple of the 99th percentile of the third rule.

    Returns
    -------
    Dataset
        (layer, channel): `range`, `is_outlier`, `multiplier`; (layer): `median_range`,
        `step_size_normal`, `step_size_outlier` (absmax / 127; NaN without outliers); (step, layer,
        channel): `is_widest`, `is_spike`; (layer): `widest_count`, channels widest at any step;
        (step, layer): `tail_ratio`, the 99th percentile of ranges over their median (0 if dead),
        `spike_count`, and `outlier_count`, channels of the first rule at that step; (layer):
        `step_jaccard`; (step, layer), of observations: `batch_jaccard`.
        Both are NaN where there are no outliers or nothing to compare.

    Raises
    ------
    MissingError
        Extrema per channel or the step are not there.
    MisuseError
        An option out of its range.
    """
    bounds = channel_bounds(dataset, analysis=_NAME)
    label = _step_label(dataset, step)
    width = bounds.upper - bounds.lower
    names = ("is_outlier", "multiplier", "median_range", "step_size_normal", "step_size_outlier")
    found = over(
        median_rule,
        width.sel(step=label),
        bounds.absmax.sel(step=label),
        core=(("channel",), ("channel",)),
        out=(("channel",), ("channel",), (), (), ()),
        dtypes=(bool, *[np.float64] * 4),
        threshold=threshold,
    )
    is_widest = over(
        widest,
        width,
        core=(("channel",),),
        out=(("channel",),),
        dtypes=(bool,),
        fraction=top_fraction,
    )
    result = xr.Dataset({"range": width.sel(step=label), **dict(zip(names, found, strict=True))})
    more = {
        "is_widest": is_widest,
        "widest_count": is_widest.any("step").sum("channel"),
        **set_measures(dataset, width, threshold=threshold, spike=spike),
    }
    result = result.drop_vars(("step", "sigma", "timestep"), errors="ignore").assign(more)
    options = {"threshold": threshold, "step": label, "top_fraction": top_fraction, "spike": spike}
    return finish(result, dataset, _NAME, **options)


def _step_label(dataset: xr.Dataset, step: int | None) -> int:
    labels = dataset["step"].values
    if step is None:
        return int(labels[len(labels) // 2])
    if step not in labels:
        raise MissingError(problem(f"no step {step}", found=", ".join(map(str, labels))))
    return int(step)


def median_rule(width: Array, absmax: Array, *, threshold: float) -> tuple[Any, ...]:
    """Outlier mask, multipliers, median and the two step sizes of rows ``(..., channel)``."""
    median = np.median(width, axis=-1)
    is_outlier = above_median(width, threshold=threshold)
    some = is_outlier.any(axis=-1)
    normal, outlier = (_step_size(absmax, mask) for mask in (~is_outlier, is_outlier))
    ratio = np.divide(outlier, normal, out=np.ones_like(normal), where=some & (normal > 0))
    factor = np.where(is_outlier, np.maximum(1.0, np.rint(ratio))[..., None], 1.0)
    absent = np.where(some, 0.0, np.nan)
    return is_outlier, factor, median, normal + absent, outlier + absent


def _step_size(absmax: Array, mask: Array) -> Array:
    largest: Array = np.where(mask, absmax, 0.0).max(axis=-1)
    return largest / _INT8_MAX


def widest(width: Array, *, fraction: float = TOP_FRACTION) -> Array:
    """Mask of the ``max(1, int(fraction * channels))`` largest of rows ``(..., channel)``.

    Of equal widths the lower channel counts as the wider; NaN is never one of them.
    """
    count = max(1, int(fraction * width.shape[-1]))
    order = np.argsort(-width, axis=-1, kind="stable")[..., :count]
    mask = np.zeros(width.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask & ~np.isnan(width)

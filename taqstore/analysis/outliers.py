"""Outlier channels: by multiple of the median range, the widest of every step, and spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import (
    Array,
    extrema_of,
    finish,
    merged_ends,
    singly,
    steps_first,
)
from taqstore.analysis.shared.outlier_set import SPIKE_RATIO, above_median, set_measures
from taqstore.analysis.table import of_row
from taqstore.errors import MissingError, problem
from taqstore.statistics.selected import least, median

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
    ends, dims = extrema_of(dataset, analysis=_NAME)
    label = _step_label(dataset, step)
    names, out, dtypes = zip(*_RESULTS, strict=True)
    batches = "batch" in dims
    made = singly(
        _of_layer,
        *ends,
        core=(dims, dims),
        out=out if batches else out[:-1],
        dtypes=dtypes if batches else dtypes[:-1],
        index=dataset["step"].values.tolist().index(label),
        threshold=threshold,
        fraction=top_fraction,
        spike=spike,
    )
    result = xr.Dataset(steps_first(dict(zip(names, made, strict=False))))
    options = {"threshold": threshold, "step": label, "top_fraction": top_fraction, "spike": spike}
    return finish(result, dataset, _NAME, **options)


_STEPS, _CHANNELS, _BOTH = ("step",), ("channel",), ("step", "channel")
# Results in their order: core dims and dtypes. The last is of observations.
_RESULTS = (
    ("range", _CHANNELS, np.float64),
    ("is_outlier", _CHANNELS, bool),
    ("multiplier", _CHANNELS, np.float64),
    *((name, (), np.float64) for name in ("median_range", "step_size_normal", "step_size_outlier")),
    ("is_widest", _BOTH, bool),
    ("widest_count", (), np.int64),
    ("tail_ratio", _STEPS, np.float64),
    ("is_spike", _BOTH, bool),
    ("spike_count", _STEPS, np.int64),
    ("outlier_count", _STEPS, np.int64),
    ("step_jaccard", (), np.float64),
    ("batch_jaccard", _STEPS, np.float64),
)


def _of_layer(
    low: Array, high: Array, *, index: int, threshold: float, fraction: float, spike: float
) -> tuple[Any, ...]:
    """`_RESULTS` of extrema ``([batch, ]step, channel)``."""
    lower, upper = merged_ends(low, high)
    width = upper - lower
    absmax = np.maximum(abs(lower), abs(upper))
    is_widest = widest(width, fraction=fraction)
    return (
        width[index],
        *median_rule(width[index], absmax[index], threshold=threshold),
        is_widest,
        is_widest.any(axis=0).sum(axis=-1),
        *set_measures(low, high, width, threshold=threshold, spike=spike),
    )


def _step_label(dataset: xr.Dataset, step: int | None) -> int:
    labels = dataset["step"].values
    if step is None:
        return int(labels[len(labels) // 2])
    if step not in labels:
        raise MissingError(problem(f"no step {step}", found=", ".join(map(str, labels))))
    return int(step)


def median_rule(width: Array, absmax: Array, *, threshold: float) -> tuple[Any, ...]:
    """Outlier mask, multipliers, median and the two step sizes of rows ``(..., channel)``."""
    middle = median(width)
    is_outlier = above_median(width, threshold=threshold)
    some = is_outlier.any(axis=-1)
    normal, outlier = (_step_size(absmax, mask) for mask in (~is_outlier, is_outlier))
    ratio = np.divide(outlier, normal, out=np.ones_like(normal), where=some & (normal > 0))
    factor = np.where(is_outlier, np.maximum(1.0, np.rint(ratio))[..., None], 1.0)
    absent = np.where(some, 0.0, np.nan)
    return is_outlier, factor, middle, normal + absent, outlier + absent


def _step_size(absmax: Array, mask: Array) -> Array:
    largest: Array = np.where(mask, absmax, 0.0).max(axis=-1)
    return largest / _INT8_MAX


def widest(width: Array, *, fraction: float = TOP_FRACTION) -> Array:
    """Mask of the ``max(1, int(fraction * channels))`` largest of rows ``(..., channel)``.

    Of equal widths the lower channel counts as the wider; NaN is never one of them.
    """
    count = max(1, int(fraction * width.shape[-1]))
    end = least(width, count, largest=True).min(axis=-1, keepdims=True)
    # NaN: fewer are known than are looked for.
    mask: Array = (width > end) | (np.isnan(end) & ~np.isnan(width))
    equal = width == end
    wanted = count - mask.sum(axis=-1, keepdims=True)
    if (equal.sum(axis=-1, keepdims=True) > wanted).any():
        equal &= equal.cumsum(axis=-1) <= wanted
    mask |= equal
    return mask

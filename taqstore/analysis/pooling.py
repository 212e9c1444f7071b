"""Observations reduced the way the source collector reduced them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.from_extrema import extrema
from taqstore.analysis.ranges.percentile import COUNTED, percentile_bounds, signed_percentile
from taqstore.analysis.shared.inputs import (
    Array,
    Bounds,
    finish,
    is_post_gelu,
    observed_histogram,
    over,
    require,
)
from taqstore.analysis.shifts import midpoint_shift
from taqstore.quantization.search import Scheme
from taqstore.statistics.moving_average import SHIFT_MOMENTUM, running_mean_float32
from taqstore.store.given import handed

_NAME = "pool"
_TAILS = {"hist_p999": 99.9, "hist_p99": 99.0, "hist_p01": 1.0, "hist_p001": 0.1}


@handed(blocks=True)
def pool(dataset: xr.Dataset, *, momentum: float = SHIFT_MOMENTUM, site: str = "") -> xr.Dataset:
    """Observations in the shape of `pooled/timestep_stats`, over batches in their order.

    Averages and shift replay the source's float32 arithmetic and are equal to the last bit to what
    it would have written from the same extrema. Its histograms cannot be replayed (it sampled rows
    without a seed): `histogram` is the exact sum of the batches' bit histograms, and the tails
    `hist_p999`, `hist_p99`, `hist_p01`, `hist_p001` come from it.

    Parameters
    ----------
    dataset
        One group `activations/<site>`.
    momentum
        Of the shift, which only inputs of `mlp.fc2` have.
    site
        Site of the group, where its attributes do not say.

    Raises
    ------
    MissingError
        `min` or `max` is not there.
    """
    require(dataset, ("min", "max", "batch"), analysis=_NAME)
    means = Bounds(*(_running_mean(dataset[name]) for name in ("min", "max")))
    tensor = means.over_channels()
    variables = {
        "avg_min": means.lower,
        "avg_max": means.upper,
        "tensor_min": tensor.lower,
        "tensor_max": tensor.upper,
        "tensor_absmax": tensor.absmax,
        "n_batches": xr.full_like(tensor.lower, dataset.sizes["batch"], dtype=np.int64),
        **_shift(dataset, momentum, site),
        **_histogram(dataset),
    }
    kept = dataset.drop_dims([d for d in ("batch", "slot") if d in dataset.dims]).coords
    result = xr.Dataset(variables, coords=kept, attrs=dataset.attrs)
    return finish(result, dataset, _NAME, momentum=momentum)


POOLED_RULES = ("tensor_absmax", "hist_p999")
"""Clip rules of the source's own scripts: what they see of observations is pooled."""


def as_pooled(dataset: xr.Dataset, *, site: str = "") -> xr.Dataset:
    """Observations as `pool` makes them; a pooled source as it is.

    Raises
    ------
    MissingError
        Of observations the batches are merged already.
    """
    if set(COUNTED) <= set(dataset.data_vars):
        require(dataset, ("min", "max", "batch"), analysis=_NAME)
    return pool(dataset, site=site) if "batch" in dataset.dims else dataset


def tensor_absmax(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """Extrema of channels averaged over batches, the outermost of them; see `clip.clip_range`."""
    return extrema(as_pooled(dataset), clip, scheme, static=static, analysis=analysis)


def hist_p999(
    dataset: xr.Dataset, clip: Clip, scheme: Scheme, *, static: bool, analysis: str
) -> Bounds:
    """`hist_p999` where it is known and not 0, else as `tensor_absmax`; see `clip.clip_range`.

    Affine ranges have `hist_p001` as their other end. Over several steps, the outermost of them.
    """
    pooled = as_pooled(dataset)
    ends = tensor_absmax(pooled, clip, scheme, static=False, analysis=analysis)
    require(pooled, ("hist_p999",), analysis=analysis)
    tail = pooled["hist_p999"].astype(np.float64)
    low = -tail if scheme.symmetric else percentile_bounds(pooled, 99.9, analysis=analysis).lower
    known = tail.notnull() & (tail != 0)
    lower, upper = low.where(known, ends.lower), tail.where(known, ends.upper)
    if static:
        return Bounds(lower.min("step", skipna=False), upper.max("step", skipna=False))
    return Bounds(lower, upper)


def _running_mean(extremum: xr.DataArray) -> xr.DataArray:
    mean: xr.DataArray = over(_replay, extremum, core=(("batch",),))
    return mean


def _replay(values: Array) -> Array:
    return running_mean_float32(np.moveaxis(values, -1, 0)).astype(np.float64)


def _shift(dataset: xr.Dataset, momentum: float, site: str) -> dict[str, xr.DataArray]:
    if not is_post_gelu(dataset, site):
        return {}
    shift = midpoint_shift(dataset, momentum=momentum)
    absmax = abs(shift).max("channel", skipna=False)
    return {"shift": shift, "shift_absmax": absmax}


def _histogram(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    observed = observed_histogram(dataset)
    if observed is None:
        return {}
    counts, layout = observed
    tails = {
        name: signed_percentile(dataset, percentile, analysis=_NAME)
        for name, percentile in _TAILS.items()
    }
    return {"histogram": counts.assign_attrs(layout.attrs), **tails}

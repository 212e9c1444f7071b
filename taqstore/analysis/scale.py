"""Clip bounds, step sizes and zero points of uniform activation quantizers."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from taqstore import quantization
from taqstore.analysis.inputs import (
    Array,
    Bounds,
    channel_bounds,
    finish,
    over,
    tensor_alpha,
    tensor_bounds,
)
from taqstore.analysis.percentile import absolute_percentile, percentile_bounds
from taqstore.errors import MissingError, TaqError, problem

_NAME = "scales"


def scales(
    dataset: xr.Dataset,
    *,
    bits: int = 8,
    symmetric: bool = True,
    clip: Literal["absmax", "percentile"] = "absmax",
    percentile: float = 99.9,
    per: Literal["tensor", "channel"] = "tensor",
    narrow_range: bool = False,
) -> xr.Dataset:
    """Quantizer parameters for every step and layer.

    Parameters
    ----------
    dataset
        Observations or a pooled source.
    bits
        2 to 16.
    symmetric
        Signed integers around zero point 0; otherwise unsigned integers and an affine zero point.
    clip
        `absmax`: extrema. `percentile`: of ``|x|`` (symmetric) or of both tails (affine), from
        histograms; for `pooled/timestep_stats` the source's signed `hist_p999`, NaN where it took
        no histogram.
    percentile
        50 to 100, for `clip="percentile"`.
    per
        One quantizer per tensor or per channel. Histograms are per tensor.
    narrow_range
        Leave out the smallest integer (symmetric only).

    Returns
    -------
    Dataset over (step, layer[, projection][, channel])
        `lower`, `upper`; `alpha` if symmetric; `step_size` float64, `zero_point` int64. The integer
        range is in the attributes `qmin` and `qmax`.

    Raises
    ------
    MissingError
        A needed variable is not there.
    TaqError
        Options that do not go together.
    """
    _check(clip, percentile, per, symmetric, narrow_range)
    qmin, qmax = quantization.integer_range(bits, signed=symmetric, narrow_range=narrow_range)
    if symmetric:
        result = _symmetric(dataset, clip, percentile, per, bits, narrow_range)
    else:
        result = _affine(dataset, clip, percentile, per, bits)
    return finish(
        result,
        dataset,
        _NAME,
        bits=bits,
        symmetric=symmetric,
        clip=clip,
        percentile=percentile if clip == "percentile" else None,
        per=per,
        narrow_range=narrow_range,
        qmin=qmin,
        qmax=qmax,
    )


def _check(clip: str, percentile: float, per: str, symmetric: bool, narrow_range: bool) -> None:
    if clip not in ("absmax", "percentile"):
        raise TaqError(problem(f"clip rule {clip!r} is not known", remedy="absmax or percentile"))
    if per not in ("tensor", "channel"):
        raise TaqError(problem(f"per {per!r} is not known", remedy="tensor or channel"))
    if clip == "percentile" and not 50 <= percentile <= 100:
        raise TaqError(problem("percentile must be 50 to 100", found=str(percentile)))
    if clip == "percentile" and per == "channel":
        raise MissingError(
            problem("no group has histograms per channel", remedy="use absmax or per tensor")
        )
    if narrow_range and not symmetric:
        raise TaqError(problem("a narrow range is for symmetric quantizers only"))


def _symmetric(
    dataset: xr.Dataset, clip: str, percentile: float, per: str, bits: int, narrow_range: bool
) -> xr.Dataset:
    if clip == "percentile":
        alpha = absolute_percentile(dataset, percentile, analysis=_NAME)
    elif per == "channel":
        alpha = channel_bounds(dataset, analysis=_NAME).absmax
    else:
        alpha = tensor_alpha(dataset, analysis=_NAME)
    step, zero = over(
        _symmetric_steps,
        alpha,
        core=((),),
        out=((), ()),
        dtypes=(np.float64, np.int64),
        bits=bits,
        narrow_range=narrow_range,
    )
    return xr.Dataset(
        {"alpha": alpha, "lower": -alpha, "upper": alpha, "step_size": step, "zero_point": zero}
    )


def _symmetric_steps(alpha: Array, *, bits: int, narrow_range: bool) -> tuple[Array, Array]:
    quantizer = quantization.symmetric(alpha, bits=bits, narrow_range=narrow_range)
    return quantizer.step_size, quantizer.zero_point


def _affine(dataset: xr.Dataset, clip: str, percentile: float, per: str, bits: int) -> xr.Dataset:
    bounds: Bounds
    if clip == "percentile":
        bounds = percentile_bounds(dataset, percentile, analysis=_NAME)
    elif per == "channel":
        bounds = channel_bounds(dataset, analysis=_NAME)
    else:
        bounds = tensor_bounds(dataset, analysis=_NAME)
    step, zero = over(
        _affine_steps,
        *bounds,
        core=((), ()),
        out=((), ()),
        dtypes=(np.float64, np.int64),
        bits=bits,
    )
    lower, upper = bounds
    return xr.Dataset({"lower": lower, "upper": upper, "step_size": step, "zero_point": zero})


def _affine_steps(lower: Array, upper: Array, *, bits: int) -> tuple[Array, Array]:
    quantizer = quantization.affine(lower, upper, bits=bits)
    return quantizer.step_size, quantizer.zero_point

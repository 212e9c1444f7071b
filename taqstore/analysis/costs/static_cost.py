"""What one clip bound for all steps costs, and how well a table of bounds reaches between steps."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.known import known_values, outermost
from taqstore.analysis.shared.inputs import Array, observed_histogram, over, quotient
from taqstore.errors import TaqError, problem
from taqstore.quantization.clipping import expected_error, search_alpha
from taqstore.quantization.quantizer import symmetric
from taqstore.statistics.bins import Layout

Clip = Literal["absmax", "mse"]
CLIPS = ("absmax", "mse")


def static_cost(
    dataset: xr.Dataset, alpha: xr.DataArray, *, bits: int, clip: Clip = "absmax"
) -> dict[str, xr.DataArray]:
    """Expected squared error of a static clip bound beside that of a bound per step.

    The static bound is the largest of all steps (`absmax`) or the best for the histogram of all
    steps together (`mse`); empty where the dataset has no bit histograms.

    Returns
    -------
    dict
        `per_step_error`, `static_error` (step, layer) in squared units of the values;
        `static_cost` (layer): the sum over steps of the second over that of the first.
    """
    if clip not in CLIPS:
        raise TaqError(problem(f"clip rule {clip!r} is not known", remedy=" or ".join(CLIPS)))
    observed = observed_histogram(dataset)
    if observed is None:
        return {}
    counts, layout = observed
    known = known_values(dataset)
    per_step, static = over(
        _errors,
        counts,
        alpha,
        *known,
        core=(("step", "bin"), ("step",), *[("step", "value")] * len(known)),
        out=(("step",), ("step",)),
        dtypes=(np.float64, np.float64),
        layout=layout,
        bits=bits,
        clip=clip,
    )
    total, best = static.sum("step", skipna=False), per_step.sum("step", skipna=False)
    return {
        "per_step_error": per_step.transpose(*alpha.dims),
        "static_error": static.transpose(*alpha.dims),
        "static_cost": quotient(total, best, empty=1.0),
    }


def _errors(
    counts: Array, alpha: Array, *known: Array, layout: Layout, bits: int, clip: Clip
) -> tuple[Array, Array]:
    """Errors ``(..., step)`` with a bound per step and with one for all of them."""
    values = known[0] if known else None
    if clip == "mse":
        own = search_alpha(counts, layout, bits=bits, known=values)
        every = None if values is None else outermost(values.reshape(*values.shape[:-2], -1))
        summed = counts.sum(axis=-2)
        shared = search_alpha(summed, layout, bits=bits, known=every)[..., None]
    else:
        own, shared = alpha, alpha.max(axis=-1, keepdims=True)
    one = np.broadcast_to(shared, own.shape)
    per_step, static = (
        expected_error(counts, layout, symmetric(bound, bits=bits), known=values)
        for bound in (own, one)
    )
    return per_step, static


def table_quality(alpha: xr.DataArray, sigma: xr.DataArray) -> dict[str, xr.DataArray]:
    """How well a table of clip bounds over sigma tells a step that is not in it.

    Each inner step is left out and interpolated linearly in sigma between its neighbours.

    Returns
    -------
    dict
        (layer): `lut_r2`, one minus the squared residuals over the squared deviations from the
        mean of the inner steps; `lut_error`, the largest residual as a share of the bound. NaN
        below three known steps; R2 also where nothing varies and the table is not exact.
    """
    r2, worst = over(
        left_out,
        alpha,
        sigma.astype(np.float64),
        core=(("step",), ("step",)),
        out=((), ()),
        dtypes=(np.float64, np.float64),
    )
    return {"lut_r2": r2, "lut_error": worst}


def left_out(alpha: Array, sigma: Array) -> tuple[Array, Array]:
    """R2 and largest relative residual of rows ``(..., step)``, NaN where a step is not known."""
    if alpha.shape[-1] < 3:
        return np.full(alpha.shape[:-1], np.nan), np.full(alpha.shape[:-1], np.nan)
    before, here, after = sigma[:-2], sigma[1:-1], sigma[2:]
    gap = after - before
    share = np.divide(here - before, gap, out=np.full(gap.shape, 0.5), where=gap != 0)
    inner = alpha[..., 1:-1]
    residual = alpha[..., :-2] + share * (alpha[..., 2:] - alpha[..., :-2]) - inner
    lost = (residual**2).sum(axis=-1)
    total = ((inner - inner.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    r2 = np.where(lost == 0, 1.0, np.nan)
    np.divide(total - lost, total, out=r2, where=(total > 0) & (lost > 0))
    relative = np.divide(abs(residual), inner, out=np.full(inner.shape, np.nan), where=inner > 0)
    return np.where(np.isnan(lost), np.nan, r2), relative.max(axis=-1)

"""What one clip bound for all steps costs, and how well a table of bounds reaches between steps."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.analysis.ranges.known import known_values
from taqstore.analysis.ranges.rules import Rule, without_options
from taqstore.analysis.shared.inputs import Array, observed_histogram, over, quotient
from taqstore.asked import word_of
from taqstore.quantization.counts import expected_error
from taqstore.quantization.quantizer import symmetric
from taqstore.quantization.search import Scheme
from taqstore.statistics.bins import Layout

_NAME = "temporal"


def static_cost(
    dataset: xr.Dataset, *, bits: int, clip: Rule = "absmax"
) -> dict[str, xr.DataArray]:
    """Expected squared error of one clip bound for all steps beside that of a bound per step.

    Parameters
    ----------
    clip
        A rule that both bounds are chosen by, one that takes no options: the largest of all steps
        (`absmax`), or the best for the histogram of all steps together (`mse`).

    Returns
    -------
    dict
        `per_step_error`, `static_error` (step, layer) in squared units of the values;
        `static_cost` (layer): the sum over steps of the second over that of the first. Empty where
        the dataset has no bit histograms.
    """
    word_of(clip, without_options(), "clip")
    observed = observed_histogram(dataset)
    if observed is None:
        return {}
    scheme = Scheme(bits, symmetric=True)
    own, shared = (
        clip_range(dataset, Clip(clip), scheme, static=static, analysis=_NAME).upper
        for static in (False, True)
    )
    counts, layout = observed
    known_to_be = known_values(dataset)
    per_step, static = over(
        _errors,
        counts,
        own,
        shared,
        *known_to_be,
        core=(("step", "bin"), ("step",), (), *[("step", "value")] * len(known_to_be)),
        out=(("step",), ("step",)),
        dtypes=(np.float64, np.float64),
        layout=layout,
        bits=bits,
    )
    total, best = static.sum("step", skipna=False), per_step.sum("step", skipna=False)
    return {
        "per_step_error": per_step.transpose(*own.dims),
        "static_error": static.transpose(*own.dims),
        "static_cost": quotient(total, best, empty=1.0),
    }


def _errors(
    counts: Array, own: Array, shared: Array, *known: Array, layout: Layout, bits: int
) -> tuple[Array, Array]:
    """Errors ``(..., step)`` with a bound per step and with one for all of them."""
    values = known[0] if known else None
    one = np.broadcast_to(shared[..., None], own.shape)
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
    alpha = np.ascontiguousarray(alpha)  # sums are of one order, however the array came
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

"""How ranges, means and spreads of each layer move over the steps."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.costs.static_cost import static_cost, table_quality
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.shared.inputs import (
    Array,
    finish,
    mean_known,
    over,
    require,
    tensor_alpha,
    tensor_bounds,
)
from taqstore.analysis.shared.merged import tensor_moments
from taqstore.analysis.table import of_row

_NAME = "temporal"
_FLOOR = 1e-6


@of_row(_NAME)
def temporal(dataset: xr.Dataset, *, bits: int = 8, clip: Rule = "absmax") -> xr.Dataset:
    """Clip bounds over the steps, and drift against sigma of all that the source tells.

    Parameters
    ----------
    dataset
        Observations or a pooled source. The range needs extrema, the mean and standard deviation
        need moments, errors need bit histograms; a source without them gives the rest.
    bits
        Of the symmetric quantizers whose errors are compared.
    clip
        Their clip bounds: absmax, or those of least expected squared error (`mse`).

    Returns
    -------
    Dataset
        (step, layer): `alpha`; `shift_absmax` where there is a shift; `tensor_range`,
        `tensor_mean`, `tensor_std` where they can be told. (layer): `alpha_mean`, `alpha_min`,
        `alpha_max`, `variability_ratio`, `cv` (population std / mean), `shift_absmax_mean`,
        `shift_absmax_max`. (quantity, layer): `slope` and `correlation` against sigma of
        absmax, range, mean, std. Steps where a layer is absent do not enter. Quality of the
        table of clip bounds, (layer): `lut_r2`, `lut_error` (see `table_quality`). From
        observations, cost of one static bound (see `static_cost`): (step, layer)
        `per_step_error`, `static_error`; (layer) `static_cost`.

    Raises
    ------
    MissingError
        There are neither extrema nor clip bounds, or no sigma.
    MisuseError
        An option out of its range.
    """
    require(dataset, ("sigma",), analysis=_NAME)
    alpha = tensor_alpha(dataset, analysis=_NAME)
    paths = {"alpha": alpha, **_extrema_path(dataset), **tensor_moments(dataset)}
    result = xr.Dataset(
        {
            **paths,
            **over_steps(alpha),
            "cv": over(coefficient_of_variation, alpha, core=(("step",),)),
            **_shift_paths(dataset),
            **_drift(paths, dataset["sigma"].astype(np.float64)),
            **table_quality(alpha, dataset["sigma"]),
            **static_cost(dataset, bits=bits, clip=clip),
        }
    )
    return finish(result, dataset, _NAME, bits=bits, clip=clip)


def over_steps(alpha: xr.DataArray) -> dict[str, xr.DataArray]:
    """Mean, minimum and maximum over steps, and ``max / (min + 1e-6)``, without absent steps."""
    smallest, largest = alpha.min("step"), alpha.max("step")
    return {
        "alpha_mean": over(mean_known, alpha, core=(("step",),)),
        "alpha_min": smallest,
        "alpha_max": largest,
        "variability_ratio": largest / (smallest + _FLOOR),
    }


def coefficient_of_variation(alpha: Array) -> Array:
    """Population standard deviation over mean along the last axis, 0 where the mean is not > 0."""
    mean = mean_known(alpha)
    spread = np.sqrt(mean_known((alpha - mean[..., None]) ** 2))
    flat = np.where(np.isnan(mean), np.nan, 0.0)
    return np.divide(spread, mean, out=flat, where=mean > 0)


def _extrema_path(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    pairs = ({"min", "max"}, {"avg_min", "avg_max"}, {"tensor_min", "tensor_max"})
    if not any(pair <= set(dataset.data_vars) for pair in pairs):
        return {}
    bounds = tensor_bounds(dataset, analysis=_NAME)
    return {"tensor_range": bounds.upper - bounds.lower}


def _shift_paths(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    if "shift" not in dataset.data_vars:
        return {}
    size = abs(dataset["shift"].astype(np.float64)).max("channel", skipna=False)
    return {
        "shift_absmax": size,
        "shift_absmax_mean": over(mean_known, size, core=(("step",),)),
        "shift_absmax_max": size.max("step"),
    }


_QUANTITIES = {
    "alpha": "absmax",
    "tensor_range": "range",
    "tensor_mean": "mean",
    "tensor_std": "std",
}


def _drift(paths: dict[str, xr.DataArray], sigma: xr.DataArray) -> dict[str, xr.DataArray]:
    labels = xr.DataArray(
        [label for name, label in _QUANTITIES.items() if name in paths],
        dims="quantity",
        name="quantity",
    )
    stacked = xr.concat(
        [path for name, path in paths.items() if name in _QUANTITIES],
        dim=labels,
        coords="minimal",
        compat="override",
    )
    slope, correlation = over(
        line, stacked, sigma, core=(("step",), ("step",)), out=((), ()), dtypes=(np.float64,) * 2
    )
    return {"slope": slope, "correlation": correlation}


def line(values: Array, sigma: Array) -> tuple[Array, Array]:
    """Least-squares slope and Pearson correlation of rows ``(..., step)`` against sigma.

    Both are NaN where fewer than two steps are known; the correlation also where nothing moves.
    """
    values = np.ascontiguousarray(values)  # sums are of one order, however the array came
    known = ~np.isnan(values)
    x = np.where(known, sigma, np.nan)
    dx, dy = (np.where(known, v - mean_known(v)[..., None], 0.0) for v in (x, values))
    xx, xy, yy = ((a * b).sum(axis=-1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    nothing = np.full(xx.shape, np.nan)
    slope = np.divide(xy, xx, out=nothing.copy(), where=xx > 0)
    both = (xx > 0) & (yy > 0)
    return slope, np.divide(xy, np.sqrt(xx * yy), out=nothing, where=both)

"""Schedules: the clip bound of each layer as a table or a polynomial of sigma."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, finish, over, require, tensor_alpha
from taqstore.analysis.temporal import coefficient_of_variation
from taqstore.errors import TaqError, problem

_NAME = "schedule"
DEGREES = (2, 3, 4)
POWERS = np.arange(DEGREES[-1] + 1)
MIN_SIGMAS = 4
NO_FIT = -1


@dataclass(frozen=True)
class FitRule:
    """When a higher degree pays.

    Parameters
    ----------
    cubic_gain, quartic_gain
        Degree 4 if its R2 exceeds that of degree 3 by more than `quartic_gain`; else 3 if that
        exceeds degree 2 by more than `cubic_gain`; else 2.
    """

    cubic_gain: float = 0.15
    quartic_gain: float = 0.10


def schedule(
    dataset: xr.Dataset,
    *,
    rule: Literal["poly", "lut"] = "poly",
    fit: FitRule | None = None,
) -> xr.Dataset:
    """Clip bounds over sigma: as they are, or fitted by least squares.

    Parameters
    ----------
    dataset
        `pooled/lut_schedule/<site>`, another pooled source, or observations.
    rule
        `lut`: one clip bound per step. `poly`: a polynomial of sigma per layer.
    fit
        Degree rule of `poly`.

    Returns
    -------
    Dataset
        (step, layer): `alpha`. With `poly` also (layer, power): `coefficient`, NaN above the
        degree; (layer): `degree`, `r2`, `cv`; (step, layer): `fitted`. Layers known at fewer than
        four sigmas are not fitted: degree -1, everything else NaN.

    Raises
    ------
    MissingError
        There are neither clip bounds nor extrema, or no sigma.
    """
    if rule not in ("poly", "lut"):
        raise TaqError(problem(f"schedule rule {rule!r} is not known", remedy="poly or lut"))
    require(dataset, ("sigma",), analysis=_NAME)
    alpha = tensor_alpha(dataset, analysis=_NAME)
    if rule == "lut":
        return finish(xr.Dataset({"alpha": alpha}), dataset, _NAME, rule=rule)
    limits = fit or FitRule()
    result = xr.Dataset({"alpha": alpha, **_polynomials(alpha, dataset["sigma"], limits)})
    return finish(result, dataset, _NAME, rule=rule, **asdict(limits))


def _polynomials(
    alpha: xr.DataArray, sigma: xr.DataArray, limits: FitRule
) -> dict[str, xr.DataArray]:
    coefficient, degree, r2, cv, fitted = over(
        fit_polynomials,
        alpha,
        sigma.astype(np.float64),
        core=(("step",), ("step",)),
        out=(("power",), (), (), (), ("step",)),
        dtypes=(np.float64, np.int64, np.float64, np.float64, np.float64),
        sizes={"power": len(POWERS)},
        limits=limits,
    )
    return {
        "coefficient": coefficient.assign_coords(power=POWERS),
        "degree": degree,
        "r2": r2,
        "cv": cv,
        "fitted": fitted.transpose(*alpha.dims),
    }


def fit_polynomials(
    alpha: Array, sigma: Array, *, limits: FitRule
) -> tuple[Array, Array, Array, Array, Array]:
    """Fit rows ``(..., step)`` against sigma ``(step,)``.

    Rows that know the same steps are fitted together.

    Returns
    -------
    coefficients ``(..., power)`` lowest power first, degrees, R2, cv, fitted ``(..., step)``.
    """
    rows = alpha.reshape(-1, alpha.shape[-1])
    count = len(rows)
    coefficient = np.full((count, len(POWERS)), np.nan)
    degree, r2 = np.full(count, NO_FIT), np.full(count, np.nan)
    fitted = np.full(rows.shape, np.nan)
    patterns, member = np.unique(~np.isnan(rows), axis=0, return_inverse=True)
    for index, known in enumerate(patterns):
        chosen = np.flatnonzero(member.reshape(-1) == index)
        if len(np.unique(sigma[known])) >= MIN_SIGMAS:
            found = _fit_complete(rows[np.ix_(chosen, known)], sigma[known], limits)
            coefficient[chosen], degree[chosen], r2[chosen] = found
            fitted[np.ix_(chosen, known)] = evaluate(coefficient[chosen], sigma[known])
    cv = np.where(degree == NO_FIT, np.nan, coefficient_of_variation(rows))
    lead = alpha.shape[:-1]
    degree, r2, cv = (v.reshape(lead) for v in (degree, r2, cv))
    return coefficient.reshape(*lead, -1), degree, r2, cv, fitted.reshape(alpha.shape)


def _fit_complete(rows: Array, sigma: Array, limits: FitRule) -> tuple[Array, Array, Array]:
    """Coefficients, degree and R2 of rows without gaps."""
    total = ((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    fits, quality = {}, {}
    for degree in DEGREES:
        # Through as many sigmas as coefficients the fit is exact; a higher degree says nothing new.
        if degree < len(np.unique(sigma)):
            fits[degree] = _padded(np.polyfit(sigma, rows.T, degree)[::-1].T)
            residual = ((rows - evaluate(fits[degree], sigma)) ** 2).sum(axis=1)
            share = np.divide(residual, total, out=np.zeros_like(total), where=total > 0)
            quality[degree] = 1 - share
        else:
            fits[degree], quality[degree] = fits[degree - 1], quality[degree - 1]
    gains = (
        quality[4] - quality[3] > limits.quartic_gain,
        quality[3] - quality[2] > limits.cubic_gain,
    )
    chosen = np.select(gains, (4, 3), 2)
    pick = [chosen == degree for degree in DEGREES]
    coefficient = np.select([p[:, None] for p in pick], list(fits.values()))
    return coefficient, chosen, np.select(pick, list(quality.values()))


def _padded(coefficient: Array) -> Array:
    width = len(POWERS) - coefficient.shape[1]
    return np.pad(coefficient, ((0, 0), (0, width)), constant_values=np.nan)


def evaluate(coefficient: Array, sigma: Array) -> Array:
    """Polynomials ``(..., power)``, NaN above their degree, at sigma ``(step,)``."""
    known = np.nan_to_num(coefficient)
    value = np.zeros((*known.shape[:-1], len(sigma)))
    for power in reversed(range(known.shape[-1])):
        value = value * sigma + known[..., power, None]
    return value

"""Schedules: the clip bound of each layer as a table or a polynomial of sigma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import Cuts, cuts_text, per_step
from taqstore.analysis.shared.inputs import Array, finish, over, require
from taqstore.analysis.table import of_row
from taqstore.analysis.temporal import coefficient_of_variation
from taqstore.asked import number, whole_number
from taqstore.errors import MisuseError, problem
from taqstore.quantization.search import Scheme

_NAME = "schedule"
DEGREES = (2, 3, 4)
POWERS = np.arange(DEGREES[-1] + 1)
MIN_SIGMAS = 4
NO_FIT = -1
# What each degree above the first must gain.
_GAINS = {"cubic_gain": 3, "quartic_gain": 4}


@dataclass(frozen=True)
class FitRule:
    """When a higher degree pays.

    Parameters
    ----------
    cubic_gain, quartic_gain
        Degree 4 if its R2 exceeds that of degree 3 by more than `quartic_gain`; else 3 if that
        exceeds degree 2 by more than `cubic_gain`; else 2.
    max_degree
        2 to 4: degrees above it are not tried.
    constant_below, quadratic_below
        A layer whose largest clip bound is less than this above its smallest has degree 0, its
        largest bound, or degree 2 whatever is gained. 0: no layer. The source's later generator
        has 2 and 5.

    Raises
    ------
    MisuseError
        A number out of its range, or one that the others leave without effect.
    """

    cubic_gain: float = 0.15
    quartic_gain: float = 0.10
    max_degree: int = DEGREES[-1]
    constant_below: float = 0.0
    quadratic_below: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cubic_gain", "quartic_gain"):
            number(getattr(self, name), name, least=0, most=1)
        whole_number(self.max_degree, "max_degree", least=DEGREES[0], most=DEGREES[-1])
        for name in ("constant_below", "quadratic_below"):
            number(getattr(self, name), name, least=0)
        if self.constant_below > self.quadratic_below > 0:
            found = f"{self.constant_below:g} and {self.quadratic_below:g}"
            what = "constant_below must not be above quadratic_below, which is never asked then"
            raise MisuseError(problem(what, found=found))
        for gain, degree in _GAINS.items():
            if self.max_degree < degree and getattr(self, gain) != getattr(FitRule, gain):
                what = f"{gain} is of degree {degree}, and max_degree does not go so far"
                raise MisuseError(problem(what, found=str(self.max_degree)))


@of_row(_NAME)
def schedule(
    dataset: xr.Dataset,
    *,
    rule: Literal["poly", "lut"] = "poly",
    fit: FitRule | None = None,
    clip: Rule = "absmax",
    percentile: float | None = None,
    momentum: float | None = None,
    order: Sequence[int] | None = None,
    bits: int | None = None,
    cuts: Cuts = None,
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
    clip, percentile, momentum, order, bits
        Rule of the clip bound, as in `scales`, and the width of rules that look for a least error.
    cuts
        As in `scales`: every step has the bound of its group.

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
    if rule == "lut" and fit is not None:
        raise MisuseError("a table is not fitted: fit goes with rule poly")
    require(dataset, ("sigma",), analysis=_NAME)
    chosen = Clip(clip, percentile, momentum, order)
    alpha = per_step(dataset, cuts, chosen, Scheme(bits or 8, symmetric=True), analysis=_NAME).upper
    stamp = {**chosen.stamp, "per": None, "bits": bits, "cuts": cuts_text(cuts), "rule": rule}
    if rule == "lut":
        return finish(xr.Dataset({"alpha": alpha}), dataset, _NAME, **stamp)
    limits = fit or FitRule()
    result = xr.Dataset({"alpha": alpha, **_polynomials(alpha, dataset["sigma"], limits)})
    return finish(result, dataset, _NAME, **stamp, **asdict(limits))


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
        if degree < len(np.unique(sigma)) and degree <= limits.max_degree:
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
    width = np.ptp(rows, axis=1)
    chosen = np.where(width < limits.quadratic_below, 2, chosen)
    chosen = np.where(width < limits.constant_below, 0, chosen)
    fits[0], quality[0] = _constant(rows, total)
    pick = [chosen == degree for degree in fits]
    coefficient = np.select([p[:, None] for p in pick], list(fits.values()))
    return coefficient, chosen, np.select(pick, list(quality.values()))


def _constant(rows: Array, total: Array) -> tuple[Array, Array]:
    """Coefficients and R2 of the largest value of every row."""
    largest = rows.max(axis=1, keepdims=True)
    residual = ((rows - largest) ** 2).sum(axis=1)
    share = np.divide(residual, total, out=np.zeros_like(total), where=total > 0)
    return _padded(largest), 1 - share


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

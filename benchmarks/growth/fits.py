"""Power laws with a constant, fitted to what was measured: y = a + b x^k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Exponents that are tried, and how well a figure is known at best: two runs of a machine that does
# nothing else differ by so much.
_EXPONENTS = np.arange(0, 300) / 100
_LEAST_NOISE = 0.03
_DEVIATIONS = 2
# So much of the largest figure has to have grown before its exponent means anything.
_GROWING = 0.2
_WIDE = 1.5


@dataclass(frozen=True)
class Fit:
    """A constant and a power of the size.

    Parameters
    ----------
    constant
        What is spent whatever the size, 0 or more.
    exponent, low, high
        The power of least error, and the range of those that explain the figures within two
        standard deviations.
    growing
        Share of the largest figure that is not there at the smallest size.
    """

    constant: float
    exponent: float
    low: float
    high: float
    growing: float

    @property
    def flat(self) -> bool:
        """Whether next to nothing grows, so that no exponent can be told."""
        return self.growing < _GROWING

    def verdict(self, bound: float) -> str:
        """``flat``, ``ok``, ``unsure`` (above the bound by chance, or no telling) or ``ABOVE``."""
        if self.flat:
            return "flat"
        if self.high - self.low > _WIDE:
            return "unsure"
        if self.exponent <= bound:
            return "ok"
        return "ABOVE" if self.low > bound else "unsure"


def fit(sizes: Sequence[float], figures: Sequence[float], noise: float = _LEAST_NOISE) -> Fit:
    """Least squares of relative errors, with the constant and the factor at least 0.

    For each exponent of a grid the constant and the factor of least squares are known in closed
    form. Where errors are larger than the noise explains, the range is wider in proportion.

    Parameters
    ----------
    sizes, figures
        At least three of each, above 0.
    noise
        Relative standard deviation of a figure; at least 3 %.
    """
    x, y = (np.asarray(values, np.float64) for values in (sizes, figures))
    if len(x) < 3 or min(x.min(), y.min()) <= 0:
        raise ValueError("a fit needs at least three sizes and figures above 0")
    weights = 1 / (max(noise, _LEAST_NOISE) * y)
    x = x / x.max()
    tried = [_constant_and_factor(x**k, y, weights) for k in _EXPONENTS]
    errors = np.array([np.sum(((a + b * x**k - y) * weights) ** 2)
                       for k, (a, b) in zip(_EXPONENTS, tried, strict=True)])  # fmt: skip
    best = int(errors.argmin())
    free = max(1, len(x) - 3)
    within = errors <= errors[best] + _DEVIATIONS**2 * max(1.0, errors[best] / free)
    constant, factor = tried[best]
    low, high = _EXPONENTS[within][[0, -1]]
    exponent = float(_EXPONENTS[best])
    growing = factor * (1 - x.min() ** exponent) / (constant + factor)
    return Fit(constant, exponent, float(low), float(high), float(growing))


def _constant_and_factor(powers: Vector, y: Vector, weights: Vector) -> tuple[float, float]:
    ones = np.ones_like(y)
    columns = np.stack([ones, powers], axis=1) * weights[:, None]
    wanted = y * weights
    if np.ptp(powers) == 0:
        return 0.0, _alone(columns[:, 1], wanted)
    constant, factor = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    if constant < 0:
        return 0.0, _alone(columns[:, 1], wanted)
    if factor < 0:
        return _alone(columns[:, 0], wanted), 0.0
    return float(constant), float(factor)


def _alone(column: Vector, wanted: Vector) -> float:
    return float(column @ wanted / (column @ column))


def slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Exponent between the ends of a curve, no constant taken off: that of counts.

    >>> slope([1, 10], [3, 300])
    2.0
    """
    return float(np.log(figures[-1] / figures[0]) / np.log(sizes[-1] / sizes[0]))

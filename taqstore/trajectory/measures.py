"""How alike the latents of two trajectories are. Sums are of float64, whatever comes in."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

LATENT = (-3, -2, -1)
"""Axes of one latent: height, width, channel."""

MIN_COSINE = 0.95
"""Below it a latent is of another picture: the field's bound (HSWQ)."""


def cosine(a: ArrayLike, b: ArrayLike) -> Float64:
    """Cosine of the angle between latents, over their last three axes.

    Parameters
    ----------
    a, b
        ``(..., height, width, channel)``.

    Returns
    -------
    float64 ``(...)``, -1 to 1: 1 of two that are 0 throughout, 0 where one is; NaN where a value is
    no finite number.
    """
    left, right = _wide(a), _wide(b)
    with np.errstate(invalid="ignore", over="ignore"):
        dot = (left * right).sum(LATENT)
        norms = np.sqrt((left**2).sum(LATENT)), np.sqrt((right**2).sum(LATENT))
        product = norms[0] * norms[1]
        found = np.divide(dot, product, out=np.zeros_like(dot), where=product != 0)
    both_zero = (norms[0] == 0) & (norms[1] == 0)
    return np.asarray(np.where(both_zero, 1.0, np.clip(found, -1, 1)))


def relative_error(a: ArrayLike, b: ArrayLike) -> Float64:
    """L2 norm of ``a - b`` by that of `b`, over the last three axes.

    Returns
    -------
    float64 ``(...)``: 0 of two that are 0 throughout, infinite where `b` alone is; NaN where a
    value is no finite number.
    """
    left, right = _wide(a), _wide(b)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.sqrt(((left - right) ** 2).sum(LATENT))
        norm = np.sqrt((right**2).sum(LATENT))
        return np.asarray(np.where((error == 0) & (norm == 0), 0.0, error / norm))


def psnr(a: ArrayLike, b: ArrayLike, *, peak: ArrayLike) -> Float64:
    """Peak signal to noise, ``10 log10(peak^2 / mean((a - b)^2))`` dB, over the last three axes.

    Parameters
    ----------
    peak
        What the largest error could be, one number or ``(...)``: 255 of pictures of 8 bits.

    Returns
    -------
    float64 ``(...)``: infinite where the two are equal, NaN where a value is no finite number.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = ((_wide(a) - _wide(b)) ** 2).mean(LATENT)
        found = 10 * np.log10(np.asarray(peak, np.float64) ** 2 / error)
        return np.asarray(np.where(error == 0, np.inf, found))


def psnr_latent(a: ArrayLike, b: ArrayLike) -> Float64:
    """`psnr` of latents: the peak is what `b`, the floating-point one, spans (max - min)."""
    right = _wide(b)
    with np.errstate(invalid="ignore"):
        return psnr(a, b, peak=right.max(LATENT) - right.min(LATENT))


def first_below(cosines: ArrayLike, bound: float) -> NDArray[np.int64]:
    """First step (image,) at which a cosine (image, step) falls below the bound; -1: at none.

    From there two trajectories are two: the step is called their bifurcation. NaN counts as below.
    """
    values = np.asarray(cosines, np.float64)
    below = ~(values >= bound)
    return np.where(below.any(axis=1), below.argmax(axis=1), -1).astype(np.int64)


def _wide(values: ArrayLike) -> Float64:
    return np.asarray(values, np.float64)

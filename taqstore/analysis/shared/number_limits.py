"""How far a number format reaches, and how far a product of integers can go in its accumulator."""

from __future__ import annotations

from math import sqrt

import numpy as np

from taqstore.statistics.bins import Floats

LIMITS: dict[str, float] = {
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "fp8_e4m3": 448.0,
    "fp8_e5m2": 57344.0,
}
"""Largest finite value of each format (fp8 as OCP has it; e4m3 has no infinity)."""

QMAX = 127
"""Largest integer of a symmetric int8, of inputs and of weights."""


def accumulator_limit(bits: int) -> float:
    """Largest value of a signed accumulator: ``2^(bits - 1) - 1``."""
    return 2.0 ** (bits - 1) - 1


def largest_by_channels(channels: int) -> float:
    """Largest product of any int8 input and int8 weights: ``127 * 127 * channels``."""
    return float(QMAX * QMAX * channels)


def largest_by_absmax(absmax: Floats, step: Floats) -> Floats:
    """Largest product that inputs with these extrema can make with int8 weights.

    ``127 * sum_j q_j``, with q_j the integer of the largest ``|x|`` of channel j, at most 127.

    Parameters
    ----------
    absmax
        ``(..., channel)``; NaN is a channel without a value, which adds nothing.
    step
        ``(...)``: step size of the inputs. 0 makes nothing of any value.
    """
    safe = np.where(step > 0, step, np.inf)[..., None]
    integers = np.minimum(np.rint(np.nan_to_num(absmax) / safe), QMAX)
    largest: Floats = QMAX * integers.sum(axis=-1)
    return largest


def largest_rms(energy: Floats, step: Floats, channels: int) -> Floats:
    """Bound of the RMS over positions of a product with int8 weights, by Cauchy and Schwarz.

    ``|sum_j q_j w_j| <= |q| |w|``, ``|w| <= 127 sqrt(channels)``, and rounding moves each of the
    integers by half at most: ``127 sqrt(channels) (sqrt(energy) / step + sqrt(channels) / 2)``.

    Parameters
    ----------
    energy
        ``(...)``: mean over positions of the sum over channels of x^2.
    step
        ``(...)``: step size of the inputs. 0 makes nothing of any value.
    """
    safe = np.where(step > 0, step, np.inf)
    length = np.sqrt(energy) / safe + sqrt(channels) / 2 * (step > 0)
    bound: Floats = QMAX * sqrt(channels) * length
    return bound

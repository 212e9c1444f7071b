"""float16 as residual streams are stored, without overflow."""

from __future__ import annotations

import numpy as np

from taqstore.errors import TaqError, problem


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Bits (uint16) of values that are bfloat16, given in float32: its upper half."""
    bits: np.ndarray = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return bits


def of_bfloat16_bits(bits: np.ndarray) -> np.ndarray:
    """The values, in float32: exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def as_float16(values: np.ndarray, what: str, *, remedy: str) -> np.ndarray:
    """Values in float16.

    Raises
    ------
    TaqError
        One is not finite in it: `what` does not fit, and `remedy` is what to do.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16, copy=False)
    if not np.isfinite(half).all():
        found = f"absmax {np.abs(values).max()}"
        raise TaqError(problem(f"{what} does not fit float16", found=found, remedy=remedy))
    return half

"""Order-dependent rules of other tools, worked out afterwards from stored extrema.

Batch is axis 0 of every input, in the order the rule is to see the batches. The float32 functions
take each step in float32, in the order of operations of the tool they replay, so that results are
equal to the last bit. NaN (a batch that was never written) makes everything after it NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import MisuseError, TaqError, problem

Float32 = npt.NDArray[np.float32]

TORCH_AVERAGING_CONSTANT = 0.01
SHIFT_MOMENTUM = 0.95


def running_mean_float32(values: npt.ArrayLike) -> Float32:
    """Mean over axis 0 as the source collector has it: ``avg += (batch - avg) / (n + 1)``.

    Parameters
    ----------
    values
        ``(batch, ...)``.

    Returns
    -------
    float32 ``(...)``.
    """
    batches = _batches(values, np.float32)
    average = np.zeros(batches.shape[1:], np.float32)
    for n, batch in enumerate(batches):
        average = average + (batch - average) / np.float32(n + 1)
    return np.asarray(average)


def ema_float32(
    values: npt.ArrayLike, averaging_constant: float = TORCH_AVERAGING_CONSTANT
) -> Float32:
    """Moving average of `torch.ao.quantization.MovingAverageMinMaxObserver`.

    The first batch as it is, then ``v += averaging_constant * (batch - v)``.

    Parameters
    ----------
    values
        ``(batch, ...)``, for example one extremum per channel.
    """
    batches = _batches(values, np.float32)
    constant = np.float32(_fraction("averaging_constant", averaging_constant))
    average = batches[0]
    for batch in batches[1:]:
        average = average + constant * (batch - average)
    return np.array(average)


def ema_midpoint(
    minimum: npt.ArrayLike,
    maximum: npt.ArrayLike,
    *,
    momentum: float = SHIFT_MOMENTUM,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Shift of the source collector: EMA over batches of ``(minimum + maximum) / 2``.

    ``s = momentum * s + (1 - momentum) * b``, started at the first midpoint.

    Parameters
    ----------
    minimum, maximum
        ``(batch, ...)``.
    dtype
        float32 replays the source; float64 equals the sum with `ema_weights`.
    """
    # A Python float takes the dtype of the array it multiplies, as it did in the source.
    midpoint = (_batches(minimum, dtype) + _batches(maximum, dtype)) / 2.0
    keep = _fraction("momentum", momentum)
    shift = midpoint[:1]
    for batch in midpoint[1:]:
        shift = keep * shift + (1.0 - keep) * batch
    return np.array(shift[0])


def ema_weights(n: int, momentum: float = SHIFT_MOMENTUM) -> npt.NDArray[np.float64]:
    """Weight of each of `n` batches in an EMA started at the first; they sum to 1.

    ``momentum**(n-1)`` for batch 0, ``(1 - momentum) * momentum**(n-1-k)`` for batch k.
    """
    keep = _fraction("momentum", momentum)
    if n < 1:
        raise TaqError(problem("an average needs at least one batch", found=str(n)))
    weights = (1.0 - keep) * keep ** np.arange(n - 1, -1, -1, dtype=np.float64)
    weights[0] = keep ** (n - 1)
    return weights


def _fraction(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise MisuseError(problem(f"{name} must lie between 0 and 1", found=str(value)))
    return float(value)


def _batches(values: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    array = np.asarray(values).astype(dtype, copy=False)
    if array.ndim == 0 or len(array) == 0:
        what = "an average needs values with at least one batch on axis 0"
        raise TaqError(problem(what, found=f"shape {array.shape}"))
    return array

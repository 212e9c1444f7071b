"""Weights of a linear on a grid: step sizes per output channel or group, rounding to nearest.

A weight is ``(out, in)``; its step sizes ``(out, group)``, each for ``in / group`` neighbouring
inputs. Grids are symmetric and signed, and rounding is half to even.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from taqstore.asked import word_of
from taqstore.errors import MisuseError, TaqError, problem
from taqstore.quantization.quantizer import Quantizer, integer_range, symmetric

Floats = npt.NDArray[np.float32]
WeightClip = Literal["absmax", "mse"]

MAX_WEIGHT_BITS = 8
# Clip bounds tried, as shares of the absmax.
_SHARES = np.linspace(1.0, 0.2, 81, dtype=np.float32)
SEARCHED_AT_ONCE = 1 << 22
"""Elements quantized at once while searching: 16 MB of float32."""


def weight_groups(inputs: int, group_size: int | None) -> int:
    """Number of groups that `group_size` neighbouring inputs make; None: one group.

    Raises
    ------
    TaqError
        `group_size` does not divide the inputs.
    """
    if group_size is None:
        return 1
    if group_size < 1 or inputs % group_size:
        what = f"groups of {group_size} do not divide {inputs} inputs"
        raise TaqError(problem(what, remedy="choose another --weight-group-size"))
    return inputs // group_size


def weight_steps(
    weight: npt.ArrayLike,
    *,
    bits: int = 4,
    group_size: int | None = None,
    clip: WeightClip,
    importance: npt.ArrayLike | None = None,
) -> Floats:
    """Step sizes of a weight.

    Parameters
    ----------
    weight
        ``(out, in)``.
    bits
        2 to 8.
    group_size
        Inputs that share a step; None: all of an output channel.
    clip
        ``absmax``: ``absmax / (2**(bits-1) - 1)``. ``mse``: the bound of least squared error among
        81 shares of the absmax, 1 to 0.2.
    importance
        ``(in,)``: what the squared error of each input's weights counts with ``mse``, such as its
        mean square; None: 1 each.

    Returns
    -------
    float32 ``(out, group)``, 1 where all weights are 0.

    Raises
    ------
    TaqError
        `bits` or `group_size` do not fit, or the rule is not known.
    """
    check_weight_bits(bits)
    word_of(clip, get_args(WeightClip), "weight clip")
    rows = _rows(np.asarray(weight, np.float32), group_size)
    absmax = np.abs(rows).max(axis=-1)
    counts = None if importance is None else np.reshape(importance, rows.shape[1:])
    bound = absmax if clip == "absmax" else _searched(rows, absmax, bits, counts)
    step = symmetric(bound, bits=bits)
    return np.where(step.step_size > 0, step.step_size, np.float32(1))


def round_to_nearest(
    weight: npt.ArrayLike, steps: Floats, *, bits: int = 4
) -> npt.NDArray[np.int8]:
    """Integers ``(out, in)`` nearest to ``weight / step``, inside the grid."""
    array = np.asarray(weight, np.float32)
    integers = _quantizer(steps, bits).quantize(array.reshape(*steps.shape, -1))
    return integers.reshape(array.shape).astype(np.int8)


def dequantized(integers: npt.NDArray[Any], steps: Floats, offsets: Floats | None = None) -> Floats:
    """Weights float32 ``(out, in)`` that integers ``(out, in)`` stand for.

    ``integer * step``, and the offset of the group ``(out, group)`` added where there are any.
    """
    grouped = integers.reshape(*steps.shape, -1).astype(np.float32) * steps[..., None]
    if offsets is not None:
        grouped += offsets[..., None]
    return grouped.reshape(integers.shape)


def check_weight_bits(bits: int) -> None:
    """Refuse widths that int8 cannot hold.

    Raises
    ------
    TaqError
        `bits` is not 2 to 8.
    """
    if not 2 <= bits <= MAX_WEIGHT_BITS:
        raise MisuseError(problem(f"weights have 2 to {MAX_WEIGHT_BITS} bits", found=str(bits)))


def _rows(weight: Floats, group_size: int | None) -> Floats:
    """The weight as ``(out, group, input of the group)``."""
    return weight.reshape(len(weight), weight_groups(weight.shape[1], group_size), -1)


def _quantizer(steps: Floats, bits: int) -> Quantizer:
    zero = np.zeros((*steps.shape, 1), np.int64)
    return Quantizer(steps[..., None], zero, *integer_range(bits))


def _searched(rows: Floats, absmax: Floats, bits: int, counts: npt.NDArray[Any] | None) -> Floats:
    """Clip bounds of least squared error; the wider one of two that are equal."""
    best = np.empty_like(absmax)
    for part in _parts(rows):
        error = np.stack(
            [_error(rows[part], symmetric(absmax[part] * s, bits=bits), counts) for s in _SHARES]
        )
        best[part] = absmax[part] * _SHARES[error.argmin(axis=0)]
    return best


def _parts(rows: Floats) -> list[slice]:
    height = max(1, SEARCHED_AT_ONCE // max(1, rows[0].size))
    return [slice(start, start + height) for start in range(0, len(rows), height)]


def _error(rows: Floats, quantizer: Quantizer, counts: npt.NDArray[Any] | None) -> Floats:
    """Sum of squared errors of each group, inputs weighted ``(group, input)``."""
    held = Quantizer(
        quantizer.step_size[..., None],
        quantizer.zero_point[..., None],
        quantizer.qmin,
        quantizer.qmax,
    )
    residual = rows - held.fake_quantize(rows)
    counted = residual if counts is None else residual * counts.astype(np.float32)
    return np.asarray(np.einsum("ogi,ogi->og", counted, residual))

"""Grids of integers that a weight is rounded to, made before it is rounded.

``w = step * integer + offset`` with signed integers of 2 to 8 bits; symmetric grids have no offset.
Steps and offsets are rounded to the dtype that they will be kept in first, the integers made for
what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from taqstore.asked import word_of
from taqstore.errors import TaqError, problem
from taqstore.quantization.quantizer import integer_range
from taqstore.quantization.weight_grid import (
    Floats,
    WeightClip,
    check_weight_bits,
    weight_groups,
    weight_steps,
)

StepDtype = Literal["float32", "float16"]

MLX_BITS = (2, 3, 4, 5, 6, 8)
"""Widths of MLX's packed affine weights."""
MLX_GROUPS = (32, 64, 128)
"""Inputs that may share a scale there."""

# Of MLX: the smallest scale.
_LEAST = np.float32(1e-7)


@dataclass(frozen=True)
class IntegerGrid:
    """Where the weights of a linear may lie.

    Parameters
    ----------
    step
        float32 ``(out, group)``, not 0; below 0 where MLX's scale is.
    offset
        float32 ``(out, group)``: what the integer 0 stands for; None: 0.
    bits
        2 to 8.
    inputs
        Of the linear; each group has ``inputs / group`` neighbouring ones.
    """

    step: Floats
    offset: Floats | None
    bits: int
    inputs: int

    def nearest(
        self, values: npt.NDArray[Any], columns: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int8], Floats]:
        """Integers and weights of the grid nearest to `values`, half to even.

        Parameters
        ----------
        values
            ``(out, column)``: what the weights of some inputs ought to be.
        columns
            ``(column,)``: which inputs these are.

        Returns
        -------
        int8 integers and float32 weights, ``(out, column)``.
        """
        group = columns // (self.inputs // self.step.shape[1])
        step = self.step[:, group]
        offset = None if self.offset is None else self.offset[:, group]
        level = np.divide(values if offset is None else values - offset, step)
        integers = np.clip(np.rint(level), *integer_range(self.bits)).astype(np.int8)
        return integers, _weights(integers, step, offset)

    def weights(self, integers: npt.NDArray[Any]) -> Floats:
        """Weights float32 ``(out, in)`` that integers ``(out, in)`` stand for."""
        grouped = integers.reshape(*self.step.shape, -1)
        offset = None if self.offset is None else self.offset[..., None]
        return _weights(grouped, self.step[..., None], offset).reshape(integers.shape)


def symmetric_grid(
    weight: npt.ArrayLike,
    *,
    bits: int = 4,
    group_size: int | None = None,
    clip: WeightClip = "absmax",
    importance: npt.ArrayLike | None = None,
    step_dtype: StepDtype = "float32",
) -> IntegerGrid:
    """Grid about 0 with the steps of `weight_steps`.

    Parameters
    ----------
    weight
        ``(out, in)``.
    bits, group_size, clip, importance
        As of `weight_steps`.
    step_dtype
        What steps are rounded to, ``float32`` or ``float16``; one that falls to 0 is the smallest
        above it.

    Raises
    ------
    TaqError
        `bits` or `group_size` do not fit, or a step is beyond `step_dtype`.
    """
    array = np.asarray(weight, np.float32)
    step = weight_steps(array, bits=bits, group_size=group_size, clip=clip, importance=importance)
    return IntegerGrid(_kept_steps(step, step_dtype), None, bits, array.shape[1])


def affine_grid(
    weight: npt.ArrayLike,
    *,
    bits: int = 4,
    group_size: int | None = 64,
    step_dtype: StepDtype = "float32",
) -> IntegerGrid:
    """Grid from the least to the largest weight of a group, as `mlx.core.quantize` makes it.

    `mlx_scales` has the formula. Integers here are MLX's less ``2**(bits-1)``, and the offset is
    its bias plus ``2**(bits-1)`` scales.

    Parameters
    ----------
    weight, bits, group_size, step_dtype
        As of `symmetric_grid`.

    Raises
    ------
    TaqError
        `bits` or `group_size` do not fit, or a step or offset is beyond `step_dtype`.
    """
    array = np.asarray(weight, np.float32)
    scale, bias = mlx_scales(array, bits=bits, group_size=group_size)
    step, bias = _kept_steps(scale, step_dtype), _kept(bias, step_dtype)
    offset = bias.astype(np.float64) + 2.0 ** (bits - 1) * step
    return IntegerGrid(step, offset.astype(np.float32), bits, array.shape[1])


def mlx_scales(
    weight: npt.ArrayLike, *, bits: int = 4, group_size: int | None = 64
) -> tuple[Floats, Floats]:
    """MLX's scales and biases: ``w = scale * code + bias``, codes 0 to ``2**bits - 1``.

    With ``low`` and ``high`` the least and the largest weight of a group and ``edge`` the one that
    is larger in absolute value (`high` where they are equal), ``scale = max((high - low) /
    (2**bits - 1), 1e-7)``, negative where the edge is `high`. The scale is then ``edge /
    rint(edge / scale)`` and the bias the edge, so that 0 lies on the grid; where ``rint`` gives 0,
    the scale stays and the bias is 0. All in float32; bit for bit what ``mx.quantize`` gives for a
    float32 weight on a CPU (mlx 0.29 to 0.32), for any `bits` and `group_size` that it takes.

    Returns
    -------
    float32 ``(out, group)`` each.

    Raises
    ------
    TaqError
        `bits` or `group_size` do not fit.
    """
    check_weight_bits(bits)
    array = np.asarray(weight, np.float32)
    rows = array.reshape(len(array), weight_groups(array.shape[1], group_size), -1)
    low, high = rows.min(axis=-1), rows.max(axis=-1)
    below = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / np.float32(2**bits - 1), _LEAST)
    scale, edge = np.where(below, scale, -scale), np.where(below, low, high)
    level = np.rint(edge / scale)
    held = level != 0
    fitted = np.divide(edge, level, out=scale.copy(), where=held)
    return fitted, np.where(held, edge, np.float32(0))


def _weights(integers: npt.NDArray[Any], step: Floats, offset: Floats | None) -> Floats:
    scaled = integers.astype(np.float32) * step
    return scaled if offset is None else scaled + offset


def _kept(values: Floats, dtype: StepDtype) -> Floats:
    """Values as `dtype` holds them, in float32."""
    word_of(dtype, get_args(StepDtype), "step dtype")
    if np.abs(values).max(initial=0) > np.finfo(dtype).max:
        what = f"steps of these weights are beyond {dtype}"
        raise TaqError(problem(what, found=str(np.abs(values).max()), remedy="keep float32 steps"))
    return values.astype(dtype).astype(np.float32)


def _kept_steps(steps: Floats, dtype: StepDtype) -> Floats:
    kept = _kept(steps, dtype)
    least = np.copysign(np.float32(np.finfo(dtype).smallest_subnormal), steps)
    return np.where(kept == 0, least, kept)

"""Soft rounding of weights: the rectified sigmoid, where it starts, and what drives it apart.

Formulas of AdaRound (arXiv 2004.10568), equations 21 to 24: ``h(V) = clip(sigmoid(V) (zeta - gamma)
+ gamma, 0, 1)`` with ``zeta = 1.1`` and ``gamma = -0.1``, and the regulariser
``sum(1 - |2 h(V) - 1|^beta)``. Gradients are written out: they take a fraction of the time that
automatic ones do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backend import backend
from ..load import Tensor
from ..quantized.activation import both

ZETA, GAMMA = 1.1, -0.1
_WIDTH = ZETA - GAMMA
# V of a weight beyond the grid: h(V) and its slope are 0, so it stays at the end of the grid.
_FIXED = -32.0
_EDGE = 1e-6
LEAN = 0.25
"""Steps that a soft weight may at first be away from the integer it starts at."""


@dataclass(frozen=True)
class SoftWeight:
    """What of a weight stays as it is while its rounding is learned.

    Parameters
    ----------
    base
        int8 ``(out, group, input)``: the integer below ``weight / step``, inside the grid.
    step
        float32 ``(out, group, 1)``.
    shape
        ``(out, in)``.
    offset
        float32 ``(out, group, 1)``, or None.
    """

    base: Tensor
    step: Tensor
    shape: tuple[int, int]
    offset: Tensor | None = None

    def soft(self, s: Tensor) -> Tensor:
        """Weight float32 ``(out, in)``, `s` being `sigmoid` of the rounding variables."""
        scaled = (self.base + stretched(s)) * self.step
        return (scaled if self.offset is None else scaled + self.offset).reshape(self.shape)

    def hard(self, v: Tensor) -> Tensor:
        """Integers int8 ``(out, in)``: rounded up where V >= 0."""
        mx = backend().mx
        return (self.base + (v >= 0).astype(mx.int8)).reshape(self.shape)

    def gradient(
        self, s: Tensor, weight_gradient: Tensor, *, beta: float | None = None, share: float = 0.0
    ) -> Tensor:
        """Gradient with respect to V of a loss, plus `share` of the rounding term.

        Parameters
        ----------
        s
            As of `soft`.
        weight_gradient
            Gradient of the loss with respect to ``soft(s)``.
        beta
            Of the rounding term; None: it is off.
        """
        of_h = weight_gradient.reshape(s.shape) * self.step
        if beta is not None:
            of_h = of_h + rounding_slope(s, beta, share=share)
        return of_h * slope(s)


def soften(weight: Tensor, step: Tensor, bounds: tuple[int, int]) -> tuple[SoftWeight, Tensor]:
    """Split a weight into its `SoftWeight` and the V at which that is the weight itself.

    Parameters
    ----------
    weight
        ``(out, in)``.
    step
        float32 ``(out, group)``.
    bounds
        Smallest and largest integer of the grid.

    Returns
    -------
    SoftWeight, and V float32 ``(out, group, input)``. A weight beyond the grid goes to its end and
    stays there.
    """
    mx = backend().mx
    low, high = bounds
    wide = step[..., None]
    level = weight.astype(mx.float32).reshape(*step.shape, -1) / wide
    below = mx.floor(level)
    inside = (below >= low) & (below < high)
    v = mx.where(inside, initial(level - below), _FIXED)
    base = mx.clip(below, low, high).astype(mx.int8)
    mx.eval(base, v)
    return SoftWeight(base, wide, tuple(weight.shape)), v


def soften_at(
    weight: Tensor,
    integers: Tensor,
    step: Tensor,
    bounds: tuple[int, int],
    offset: Tensor | None = None,
) -> tuple[SoftWeight, Tensor]:
    """Split a weight so that it starts at integers that are given, wherever they are.

    Each weight chooses between its integer and the neighbour on the side of the floating-point
    weight: where the integer is one of the two about the weight, these are AdaRound's own; where it
    lies further away, it may stay or come one step nearer. It begins where the weight is, and at
    most `LEAN` steps from the integer.

    Parameters
    ----------
    weight, step, bounds
        As of `soften`; steps may be below 0.
    integers
        int8 ``(out, in)``, inside the grid.
    offset
        float32 ``(out, group)``: what the integer 0 stands for; None: 0.

    Returns
    -------
    As of `soften`: rounded hard, at first it is the integers. One whose neighbour is beyond the
    grid stays.
    """
    mx = backend().mx
    low, high = bounds
    wide = step[..., None]
    its = integers.reshape(*step.shape, -1).astype(mx.float32)
    at = None if offset is None else offset[..., None]
    given = weight.astype(mx.float32).reshape(*step.shape, -1)
    away = (given if at is None else given - at) / wide - its
    above = away >= 0
    lean = mx.minimum(mx.abs(away), LEAN)
    inside = mx.where(above, its < high, its > low)
    v = mx.where(inside, initial(mx.where(above, lean, 1 - lean)), _FIXED)
    base = mx.where(inside & ~above, its - 1, its).astype(mx.int8)
    mx.eval(base, v)
    return SoftWeight(base, wide, tuple(weight.shape), at), v


def initial(fraction: Tensor) -> Tensor:
    """V with ``h(V) = fraction``: ``-ln(1.2 / (fraction + 0.1) - 1)``."""
    mx = backend().mx
    inner = mx.clip(fraction, _EDGE, 1 - _EDGE)
    return -mx.log(_WIDTH / (inner - GAMMA) - 1)


def sigmoid(v: Tensor) -> Tensor:
    """``1 / (1 + e^-V)``; by `power`, which unlike `exp` MLX has vectorised on a CPU."""
    mx = backend().mx
    return 1 / (1 + mx.power(mx.array(math.exp(-1)), v))


def stretched(s: Tensor) -> Tensor:
    """``h(V)``, 0 to 1, of ``s = sigmoid(V)``."""
    return backend().mx.clip(s * _WIDTH + GAMMA, 0, 1)


def slope(s: Tensor) -> Tensor:
    """``h'(V)`` of ``s = sigmoid(V)``: 0 where h is cut off."""
    inside = both(s > -GAMMA / _WIDTH, s < (1 - GAMMA) / _WIDTH)
    return (s * (1 - s)) * (_WIDTH * inside)


def rounding_loss(v: Tensor, beta: float) -> Tensor:
    """``sum(1 - |2 h(V) - 1|^beta)``."""
    mx = backend().mx
    return (1 - mx.power(mx.abs(2 * stretched(sigmoid(v)) - 1), beta)).sum()


def rounding_slope(s: Tensor, beta: float, *, share: float = 1.0) -> Tensor:
    """`share` times the derivative of ``1 - |u|^beta`` by h where h is not cut off.

    ``-2 beta |u|^(beta-2) u`` with ``u = 2 h - 1``.
    """
    mx = backend().mx
    u = s * (2 * _WIDTH) + (2 * GAMMA - 1)
    return mx.power(mx.abs(u), beta - 2) * u * (-2 * beta * share)


def unsettled(v: Tensor) -> Tensor:
    """Number of weights that are neither up nor down yet."""
    h = stretched(sigmoid(v))
    return ((h > 0) & (h < 1)).sum()

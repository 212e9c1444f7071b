"""Fake quantization of activations with gradients that reach the step size.

LSQ (arXiv 1902.08153): rounding counts as the identity, so an element inside the grid has slope 1
with respect to x and ``round(x / s) - x / s`` with respect to s; one that is clipped has 0 and the
integer it is clipped to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backend import backend
from ..load import Tensor


@cache
def fake_quantizer(qmin: int, qmax: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The function ``(x, step) -> clip(round(x / step), qmin, qmax) * step``, half to even.

    `x` is ``(row, token, 1, channel)``, `step` ``(row, 1, 1, 1)``.
    """
    mx = backend().mx

    def quantize(x: Tensor, step: Tensor) -> Tensor:
        return mx.clip(mx.round(x / step), qmin, qmax) * step

    def gradients(primals: Any, cotangent: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        x, step = primals
        inside = (x >= step * qmin) & (x <= step * qmax)
        # integer * step, less level * step where inside; a product of rows is summed as it goes.
        residual = (output - x * inside).reshape(x.shape[0], -1, 1)
        pull = (cotangent.reshape(x.shape[0], 1, -1) @ residual).reshape(step.shape) / step
        return cotangent * inside, pull

    function: Any = mx.custom_function(quantize)
    function.vjp(gradients)
    found: Callable[[Tensor, Tensor], Tensor] = function
    return found


def keep_some(x: Tensor, quantized: Tensor, *, share: float, key: Tensor) -> Tensor:
    """QDrop: `quantized`, but `x` itself in about this share of the elements."""
    mx = backend().mx
    return mx.where(mx.random.bernoulli(share, x.shape, key=key), x, quantized)

"""Reducers: activation tensors -> their observations, on the CPU or where the tensors lie.

NumPy is the faster one on a CPU and the measure of the other. MLX spares a GPU the transfer: what
leaves it are extrema, sums of blocks of rows and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from taqstore.statistics.bins import Layout
from taqstore.statistics.observation import Observation, narrowed, observe_each

from .backend import backend
from .load import Tensor, to_numpy

# Rows whose float32 sum loses little.
_ROWS = 64


class Reducer(Protocol):
    """Makes an observation of each tensor ``(..., channel)``."""

    def __call__(self, tensors: Sequence[Tensor], mantissa_bits: int) -> list[Observation]:
        """Observe; `mantissa_bits` are those of the histograms."""
        ...


def numpy_reducer(tensors: Sequence[Tensor], mantissa_bits: int) -> list[Observation]:
    """Observe by `taqstore.statistics.observation`, reading the tensors' own memory."""
    return observe_each([to_numpy(tensor) for tensor in tensors], mantissa_bits=mantissa_bits)


def mlx_reducer(tensors: Sequence[Tensor], mantissa_bits: int) -> list[Observation]:
    """Observe with MLX: extrema and counts exact, moments to about 1e-7.

    Deviations from a float32 mean are summed in float32 over `_ROWS` rows at a time and these sums
    in float64, for a plain float32 sum is off by 5e-6. A tensor with NaN or Inf goes to NumPy.
    """
    return [_observe_with_mlx(tensor, mantissa_bits) for tensor in tensors]


def _observe_with_mlx(tensor: Tensor, mantissa_bits: int) -> Observation:
    mx = backend().mx
    flat = tensor.reshape(-1, tensor.shape[-1])
    if flat.dtype == mx.bfloat16:
        flat = flat.astype(mx.float32)
    if not mx.isfinite(flat).all().item():
        return numpy_reducer([tensor], mantissa_bits)[0]
    low, high = flat.min(axis=0), flat.max(axis=0)
    centre = flat.astype(mx.float32).mean(axis=0)
    sums, squares = _deviation_sums(flat, centre)
    layout = Layout(str(flat.dtype).rpartition(".")[2], mantissa_bits)
    histogram = _histogram(flat, layout)
    mx.eval(low, high, centre, sums, squares, histogram)
    rows, channels = flat.shape
    offset = np.asarray(sums, np.float64).sum(axis=0)
    spread = np.asarray(squares, np.float64).sum(axis=0) - offset**2 / rows
    return Observation(
        finite=np.full(channels, rows, np.int64),
        min=np.array(low),
        max=np.array(high),
        mean=np.asarray(centre, np.float64) + offset / rows,
        m2=np.maximum(spread, 0),
        layout=layout,
        count=rows,
        histogram=narrowed(np.array(histogram, np.int64)),
        nonfinite=np.zeros(3, np.int64),
    )


def default_reducer() -> Reducer:
    """MLX where MLX computes on a GPU, else NumPy."""
    mx = backend().mx
    return mlx_reducer if mx.default_device() == mx.Device(mx.gpu, 0) else numpy_reducer


def _deviation_sums(flat: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of deviations and of their squares, ``(block of rows, channel)`` each."""
    mx = backend().mx
    sums, squares = [], []
    for start in range(0, len(flat), _ROWS):
        deviation = flat[start : start + _ROWS].astype(mx.float32) - centre
        sums.append(deviation.sum(axis=0))
        squares.append(mx.square(deviation).sum(axis=0))
    return mx.stack(sums), mx.stack(squares)


def _histogram(flat: Tensor, layout: Layout) -> Tensor:
    """Counts ``(bin,)`` of finite values; negative zero is counted as zero."""
    mx = backend().mx
    words = flat.view(mx.uint16 if layout.dtype == "float16" else mx.uint32).flatten()
    half, sign = layout.zero_bin, layout.zero_bin + (1 << layout.mantissa_bits)
    zeros = mx.zeros(2 * sign, dtype=mx.uint32)
    codes = zeros.at[words >> layout.shift].add(mx.array(1, dtype=mx.uint32))
    negative_zero = words == (sign << layout.shift)
    minus = negative_zero.sum().astype(mx.uint32)
    counts = mx.concatenate([codes[sign : sign + half][::-1], codes[:half]])
    at = mx.array([half - 1, half])
    return counts.at[at].add(mx.stack([mx.array(0, dtype=mx.uint32) - minus, minus]))

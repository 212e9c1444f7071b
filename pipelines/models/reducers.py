"""Reducers: activation tensors -> their observations, on the CPU or where the tensors lie.

NumPy is the faster one on a CPU and the measure of the other. MLX spares a GPU the transfer: what
leaves it are extrema, sums of blocks of rows and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    All tensors are under way before the first is waited for.
    """
    mx, found = backend().mx, [lazily_observed(tensor, mantissa_bits) for tensor in tensors]
    for one in found:
        mx.async_eval(list(one.values()))
    return [
        _observation(tensor, one, mantissa_bits) for tensor, one in zip(tensors, found, strict=True)
    ]


def lazily_observed(tensor: Tensor, mantissa_bits: int) -> dict[str, Tensor]:
    """What leaves the device of a tensor: not evaluated, and as many kernels for any shape."""
    mx, flat = backend().mx, _flat(tensor)
    wide = flat.astype(mx.float32)
    centre = wide.mean(axis=0)
    # Rows of zeros, so that all blocks are alike: no kernel is launched for a block of its own.
    whole = mx.pad(wide - centre, [(0, -len(flat) % _ROWS), (0, 0)])
    blocks = whole.reshape(-1, _ROWS, flat.shape[1])
    return {
        "finite": mx.isfinite(flat).all(),
        "min": flat.min(axis=0),
        "max": flat.max(axis=0),
        "centre": centre,
        "sums": blocks.sum(axis=1),
        "squares": mx.square(blocks).sum(axis=1),
        "histogram": _histogram(flat, _layout(flat, mantissa_bits)),
    }


def _observation(tensor: Tensor, seen: Mapping[str, Tensor], mantissa_bits: int) -> Observation:
    if not seen["finite"].item():
        return numpy_reducer([tensor], mantissa_bits)[0]
    rows, channels = tensor.size // tensor.shape[-1], tensor.shape[-1]
    offset = np.asarray(seen["sums"], np.float64).sum(axis=0)
    spread = np.asarray(seen["squares"], np.float64).sum(axis=0) - offset**2 / rows
    return Observation(
        finite=np.full(channels, rows, np.int64),
        min=np.array(seen["min"]),
        max=np.array(seen["max"]),
        mean=np.asarray(seen["centre"], np.float64) + offset / rows,
        m2=np.maximum(spread, 0),
        layout=_layout(_flat(tensor), mantissa_bits),
        count=rows,
        histogram=narrowed(np.array(seen["histogram"], np.int64)),
        nonfinite=np.zeros(3, np.int64),
    )


def _flat(tensor: Tensor) -> Tensor:
    """Rows ``(row, channel)``; bfloat16 widened to float32."""
    mx, flat = backend().mx, tensor.reshape(-1, tensor.shape[-1])
    return flat.astype(mx.float32) if flat.dtype == mx.bfloat16 else flat


def _layout(flat: Tensor, mantissa_bits: int) -> Layout:
    return Layout(str(flat.dtype).rpartition(".")[2], mantissa_bits)


def default_reducer() -> Reducer:
    """MLX where MLX computes on a GPU, else NumPy."""
    mx = backend().mx
    return mlx_reducer if mx.default_device() == mx.Device(mx.gpu, 0) else numpy_reducer


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

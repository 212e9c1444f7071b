"""Quantization error worked out from a float-bit-prefix histogram.

Counts are ``(..., bin)`` and everything works over the leading axes. `spread` says what is assumed
inside a bin, `counts` what values that are `known` to be among those
counted tell besides: ``(..., value)``, NaN where there are fewer, the least and the largest of all
among them.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from taqstore.quantization.counts import known_rows, mean_over
from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.spread import Spread
from taqstore.statistics.bins import Floats, Layout


def expected_error(
    counts: npt.ArrayLike, layout: Layout, quantizer: Quantizer, *, known: Floats | None = None
) -> Floats:
    """Mean squared error of quantizing the counted values, clipping included.

    Exact for values spread evenly over their bins, and where a bin holds a single value.

    Parameters
    ----------
    quantizer
        Its `step_size` broadcasts against the leading axes of `counts`.

    Returns
    -------
    float64 ``(...)``, in squared units of the values; NaN where nothing was counted.
    """
    array = layout.checked(counts)
    shape = np.broadcast_shapes(array.shape[:-1], np.shape(quantizer.step_size))
    used = np.flatnonzero(array.reshape(-1, layout.bins).any(axis=0))
    held = np.broadcast_to(array[..., used], (*shape, len(used)))
    held = held.reshape(prod(shape), len(used))
    step, zero = (
        np.broadcast_to(value, shape).ravel()
        for value in (quantizer.step_size, quantizer.zero_point)
    )
    flat = Quantizer(step, zero, quantizer.qmin, quantizer.qmax)
    values = known_rows(known, shape)
    mean = mean_over(
        held, Spread.of(layout)[used], lambda bins, rows: bins.error(flat[rows]), known=values
    )
    return mean.reshape(shape)

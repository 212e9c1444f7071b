"""A histogram of every channel of one tensor, in the bins of `histogram`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.bins import Counts, Layout
from taqstore.errors import TaqError, problem

# Counts made at once: 512 KB of int64 stay in the L2 cache.
_CODES = 1 << 16


def count_channels(values: npt.ArrayLike, layout: Layout) -> Counts:
    """Count the finite values of each channel.

    Parameters
    ----------
    values
        ``(..., channel)`` of the layout's dtype.

    Returns
    -------
    int64 ``(channel, bin)``; summed over channels it is what `histogram.count` gives.

    Raises
    ------
    TaqError
        The values are of another dtype.
    """
    return np.stack(list(each_channel(values, layout))).astype(np.int64)


def each_channel(values: npt.ArrayLike, layout: Layout) -> Iterator[npt.NDArray[Any]]:
    """The rows of `count_channels` one by one, each in memory of its own; uint32 if they fit."""
    array = np.asarray(values)
    if array.dtype.name != layout.dtype:
        what = f"channel histograms of layout {layout.dtype} need values of it"
        raise TaqError(problem(what, found=array.dtype.name))
    flat = array.reshape(-1, array.shape[-1])
    codes_per_channel = 2 * (layout.zero_bin + (1 << layout.mantissa_bits))
    width = max(1, _CODES // codes_per_channel)
    for at in range(0, flat.shape[1], width):
        yield from _count(flat[:, at : at + width], layout, codes_per_channel)


def _count(block: npt.NDArray[Any], layout: Layout, codes: int) -> Iterator[npt.NDArray[Any]]:
    channels, half = block.shape[1], layout.zero_bin
    # Adding positive zero turns the negative one into it and leaves every other value as it is.
    bits = (block + _zero(layout)).view(layout.word)
    index = (bits >> layout.word(layout.shift)).astype(np.int64)
    index += np.arange(channels) * codes
    counted = np.bincount(index.ravel("K"), minlength=channels * codes).reshape(channels, codes)
    sign = codes // 2
    for row in counted.astype(np.uint32 if len(block) < 2**32 else np.int64):
        yield np.concatenate([row[sign : sign + half][::-1], row[:half]])


def _zero(layout: Layout) -> Any:
    """Positive zero in the layout's dtype."""
    return np.dtype(layout.dtype).type(0)

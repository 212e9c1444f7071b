"""A histogram of every channel of one tensor, in the bins of `histogram`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import TaqError, problem
from taqstore.statistics.bins import Layout

# Counts made at once: 512 KB of int64 stay in the L2 cache.
_CODES = 1 << 16


def count_blocks(values: npt.ArrayLike, layout: Layout) -> Iterator[npt.NDArray[Any]]:
    """Count the finite values of each channel, a few channels at a time.

    Parameters
    ----------
    values
        ``(..., channel)`` of the layout's dtype.

    Yields
    ------
    ``(some, bin)``, uint32 if they fit, else int64, each memory of its own; summed over channels
    it is what `histogram.count` gives.

    Raises
    ------
    TaqError
        The values are of another dtype.
    """
    array = np.asarray(values)
    if array.dtype.name != layout.dtype:
        what = f"channel histograms of layout {layout.dtype} need values of it"
        raise TaqError(problem(what, found=array.dtype.name))
    flat = array.reshape(-1, array.shape[-1])
    codes_per_channel = 2 * (layout.zero_bin + (1 << layout.mantissa_bits))
    width = max(1, _CODES // codes_per_channel)
    for at in range(0, flat.shape[1], width):
        yield _count(flat[:, at : at + width], layout, codes_per_channel)


def _count(block: npt.NDArray[Any], layout: Layout, codes: int) -> npt.NDArray[Any]:
    channels, half = block.shape[1], layout.zero_bin
    # Adding positive zero turns the negative one into it and leaves every other value as it is.
    bits = (block + _zero(layout)).view(layout.word)
    index = (bits >> layout.word(layout.shift)).astype(np.int64)
    index += np.arange(channels) * codes
    counted = np.bincount(index.ravel("K"), minlength=channels * codes).reshape(channels, codes)
    sign = codes // 2
    narrow = counted.astype(np.uint32 if len(block) < 2**32 else np.int64)
    positive, negative = narrow[:, :half], narrow[:, sign : sign + half]
    return np.concatenate([negative[:, ::-1], positive], axis=1)


def _zero(layout: Layout) -> Any:
    """Positive zero in the layout's dtype."""
    return np.dtype(layout.dtype).type(0)

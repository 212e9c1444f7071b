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
    width = max(1, _CODES // _codes(layout))
    for at in range(0, flat.shape[1], width):
        yield _count(flat[:, at : at + width], layout)


def _codes(layout: Layout) -> int:
    """Bins with those of infinity and NaN, at either end: a power of two."""
    return 2 * (layout.zero_bin + (1 << layout.mantissa_bits))


def _count(block: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    channels, codes, ends = block.shape[1], _codes(layout), 1 << layout.mantissa_bits
    # Adding positive zero turns the negative one into it and leaves every other value as it is.
    bits = (block + _zero(layout)).view(f"i{block.dtype.itemsize}").astype(np.int32, copy=False)
    # The bins of negative values go down from the middle as those of positive ones go up.
    flip = bits >> 31
    flip |= codes // 2
    flip ^= bits >> layout.shift
    flip += np.arange(0, channels * codes, codes, dtype=np.int32)
    counted = np.bincount(flip.ravel("K"), minlength=channels * codes).reshape(channels, codes)
    return counted[:, ends : codes - ends].astype(np.uint32 if len(block) < 2**32 else np.int64)


def _zero(layout: Layout) -> Any:
    """Positive zero in the layout's dtype."""
    return np.dtype(layout.dtype).type(0)

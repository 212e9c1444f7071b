"""Histograms of every source on bins that all rows share, so that they add and compare."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, histogram_bins, observed_histogram, over
from taqstore.quantization.spread import Spread

# Logarithmic bins of pooled histograms, 1.1 % wide: fewer than the 256 linear ones hold per octave
# only in their outermost, about as wide.
_PER_OCTAVE = 64
_OCTAVES = (-20, 24)


def common_bins(dataset: xr.Dataset, *, analysis: str) -> tuple[xr.DataArray, Spread]:
    """Counts of all batches (..., bin) and the bins they share; lazy.

    Observations are as stored. A pooled source's bins differ from row to row: its counts are
    spread evenly over them and cut anew at powers of ``2**(1/64)`` between 2^-20 and 2^24, which
    makes them fractions.

    Raises
    ------
    MissingError
        The source has no histograms.
    """
    observed = observed_histogram(dataset)
    if observed is not None:
        counts, layout = observed
        return counts, Spread.of(layout)
    bins = histogram_bins(dataset, analysis=analysis)
    edges = _common_edges()
    counts = over(
        rebinned,
        *bins,
        core=(("bin",), ("edge",)),
        out=(("common",),),
        sizes={"common": len(edges) - 1},
        target=edges,
    )
    return counts.rename(common="bin"), Spread(edges[:-1], edges[1:])


def _common_edges() -> Array:
    first, last = (octave * _PER_OCTAVE for octave in _OCTAVES)
    magnitude = np.exp2(np.arange(first, last + 1) / _PER_OCTAVE)
    return np.concatenate([-magnitude[::-1], [0.0], magnitude])


def rebinned(counts: Array, edges: Array, *, target: Array) -> Array:
    """Counts spread evenly over their bins and cut at other edges.

    Parameters
    ----------
    counts, edges
        ``(..., bin)`` and ``(..., bin + 1)`` or ``(bin + 1,)``.
    target
        ``(n + 1,)``, ascending; what lies outside goes to the end bins.

    Returns
    -------
    float64 ``(..., n)``.
    """
    bins = counts.shape[-1]
    rows = counts.reshape(-1, bins)
    own = np.broadcast_to(edges, (*counts.shape[:-1], bins + 1)).reshape(-1, bins + 1)
    own = np.nan_to_num(own)
    below = np.zeros(own.shape)
    np.cumsum(rows, axis=-1, out=below[:, 1:])
    index = _bin_of(own, target)
    left, right = (np.take_along_axis(own, index + side, axis=-1) for side in (0, 1))
    within = np.zeros(index.shape)
    np.divide(target - left, right - left, out=within, where=right > left)
    start, end = (np.take_along_axis(below, index + side, axis=-1) for side in (0, 1))
    reached = start + np.clip(within, 0.0, 1.0) * (end - start)
    reached[:, 0], reached[:, -1] = 0.0, below[:, -1]
    cut: Array = np.diff(reached, axis=-1)
    return cut.reshape(*counts.shape[:-1], len(target) - 1)


def _bin_of(edges: Array, target: Array) -> Array:
    """Index of the bin of each row's `edges` that holds each of `target`, ``(row, target)``."""
    # Edges are counted into the targets: one search of few edges for a row of many targets.
    place = np.searchsorted(target, edges)
    passed = np.zeros((len(edges), len(target) + 1), np.int64)
    np.add.at(passed, (np.arange(len(edges))[:, None], place), 1)
    index: Array = np.cumsum(passed[:, :-1], axis=-1) - 1
    return np.clip(index, 0, edges.shape[-1] - 2)

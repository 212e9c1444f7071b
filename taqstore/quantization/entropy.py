"""Clip ranges of least Kullback-Leibler divergence, as entropy calibrators choose them.

The rule of TensorRT's calibrator (Migacz, GTC 2017, S7310) in the form of onnxruntime's
`HistogramCollector` (2,048 bins over [-absmax, absmax], 128 quantized bins, zeros smoothed to 1e-4)
on histograms of any bins, re-binned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.quantization.spread import Spread, row_slices
from taqstore.statistics.bins import Counts, Floats

BINS = 2048
LEVELS = 128
SMOOTH = 1e-4


def linear_counts(
    counts: npt.NDArray[Any], spread: Spread, absmax: Floats, *, bins: int = BINS
) -> Counts:
    """Histograms over `bins` equal bins of [-absmax, absmax], as `numpy.histogram` has them.

    Exact where the stored bins are single values; otherwise the values of a bin are taken as evenly
    spread, cumulated counts rounded to integers.

    Parameters
    ----------
    counts, absmax
        ``(row, bin)`` and ``(row,)``.

    Returns
    -------
    int64 ``(row, bins)``; zeros where `absmax` is NaN.
    """
    known = np.nan_to_num(absmax)
    edges = np.linspace(-known, known, bins + 1, axis=-1)
    # Float64 edges of a range that float32 arithmetic made: the outermost values belong inside.
    below = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts, axis=-1, out=below[:, 1:])
    reached = _points_below(below, spread, edges) if spread.points else _below(below, spread, edges)
    reached[:, 0], reached[:, -1] = 0, below[:, -1]
    whole = np.rint(reached).astype(np.int64)
    return np.where(known[:, None] > 0, whole[:, 1:] - whole[:, :-1], 0)


def _points_below(below: Floats, spread: Spread, edges: Floats) -> Floats:
    index = np.searchsorted(spread.left, edges)
    return np.take_along_axis(below, index, axis=-1)


def _below(below: Floats, spread: Spread, edges: Floats) -> Floats:
    """Cumulated counts at `edges`, linear inside each bin."""
    index = np.clip(np.searchsorted(spread.right, edges), 0, len(spread.left) - 1)
    width = spread.right[index] - spread.left[index]
    within = np.clip((edges - spread.left[index]) / width, 0.0, 1.0)
    start = np.take_along_axis(below, index, axis=-1)
    reached: Floats = start + within * (np.take_along_axis(below, index + 1, axis=-1) - start)
    return reached


def entropy_range(counts: npt.NDArray[Any], absmax: Floats) -> tuple[Floats, Floats]:
    """Range (low, high) of least divergence between clipped and requantized histograms.

    For every half width i from 64 to 1,024 bins, P is the histogram cut to bins -i to i with what
    lies outside added to its end bins, and Q the cut merged to 128 levels (a remainder of bins is
    left out of Q), each level's whole mean count given back to its bins. Zeros of both become 1e-4.

    Parameters
    ----------
    counts
        ``(row, 2048)`` over [-absmax, absmax]; see `linear_counts`.
    absmax
        ``(row,)``.

    Returns
    -------
    low, high
        float64 ``(row,)``: ``-i`` and ``i + 1`` bin widths, at most `absmax`; 0 where that is 0;
        NaN where nothing was counted.
    """
    bins = counts.shape[1]
    half = np.empty(len(counts), np.int64)
    for rows in row_slices(len(counts), LEVELS):
        half[rows] = _least_divergent(_Sums.of(counts[rows]))
    width = 2 * absmax / bins
    some = counts.any(axis=1)
    low, high = -half * width, np.minimum((half + 1) * width, absmax)
    # Zeros alone: no bin has a width, and no range loses anything.
    flat = np.where(absmax == 0, 0.0, np.nan)
    return np.where(some, low, flat), np.where(some, high, flat)


@dataclass(frozen=True)
class _Sums:
    """Sums over the bins before each edge, ``(row, bins + 1)``: cuts follow by differences."""

    counts: Floats
    mass: Floats
    used: Floats
    information: Floats
    logs: Floats

    @classmethod
    def of(cls, counts: Counts) -> _Sums:
        values = counts.astype(np.float64)
        logs = np.log(np.maximum(values, 1.0))
        return cls(values, *map(_running, (values, values > 0, values * logs, logs)))


def _running(values: npt.NDArray[Any]) -> Floats:
    return np.pad(np.cumsum(values, axis=1, dtype=np.float64), ((0, 0), (1, 0)))


def _least_divergent(sums: _Sums) -> Counts:
    """Half width in bins of least divergence, the narrowest of equals, ``(row,)``."""
    bins = sums.counts.shape[1]
    best = np.full(len(sums.counts), bins // 2)
    least = np.full(len(best), np.inf)
    for half in range(LEVELS // 2, bins // 2 + 1):
        divergence = _divergence(sums, bins // 2 - half, min(bins // 2 + half + 1, bins))
        better = divergence < least
        best[better], least[better] = half, divergence[better]
    return best


def _divergence(sums: _Sums, start: int, stop: int) -> Floats:
    """KL(P || Q) of the cut [start, stop), ``(row,)``; infinite where Q is nothing."""
    cuts = np.append(start + (stop - start) // LEVELS * np.arange(LEVELS + 1), stop)
    size = np.diff(cuts)
    p, used, own = _reference(sums, cuts, LEVELS if size[-1] else LEVELS - 1)
    q = np.diff(sums.mass[:, cuts], axis=1)
    q[:, -2] += q[:, -1]
    share = np.floor_divide(q, used, out=np.zeros_like(q), where=used > 0)
    share[:, -1] = 0.0
    taken = _taken(np.where(share > 0, size, 0.0), size)
    log_q = np.log(np.where(share > 0, share - taken, SMOOTH))
    empty = size - used
    taken = _taken(used, size)
    total, scale = p.sum(axis=1), share @ size
    own += empty.sum(axis=1) * SMOOTH * np.log(SMOOTH)
    # What the zeros gain is taken off the others evenly; its square is left out of own.
    logs = sums.logs[:, stop] - sums.logs[:, start] + used.sum(axis=1)
    own -= taken[:, 0] * logs
    cross = ((p - taken * used + empty * SMOOTH) * log_q).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        divergence = (own - cross) / total - np.log(total) + np.log(scale)
    return np.where(scale > 0, divergence, np.inf)


def _reference(sums: _Sums, cuts: Counts, last: int) -> tuple[Floats, Floats, Floats]:
    """P of the cut: mass and bins in use per level, and the sum of ``p log p``."""
    start, stop = cuts[0], cuts[-1]
    p, used = (np.diff(running[:, cuts], axis=1) for running in (sums.mass, sums.used))
    own = sums.information[:, stop] - sums.information[:, start]
    left, right = sums.mass[:, start], sums.mass[:, -1] - sums.mass[:, stop]
    for level, index, outside in ((0, start, left), (last, stop - 1, right)):
        inside = sums.counts[:, index]
        p[:, level] += outside
        used[:, level] += (inside == 0) & (outside > 0)
        own += _information(inside + outside) - _information(inside)
    return p, used, own


def _information(mass: Floats) -> Floats:
    information: Floats = mass * np.log(np.maximum(mass, 1.0))
    return information


def _taken(used: Floats, size: Counts) -> Floats:
    """What smoothing takes off each bin in use, ``(row, 1)``."""
    held = used.sum(axis=1, keepdims=True)
    taken: Floats = SMOOTH * (size.sum() - held) / np.maximum(held, 1.0)
    return taken

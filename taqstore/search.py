"""Quantizers of least expected error for many histograms at once.

Every histogram is tried on one absolute, logarithmic grid of step sizes (and places of zero), so
the errors of all rows under all candidates are a single matrix product of counts and errors of
bins; winners are then refined on finer grids, rows that share a winner together. A row sees only
the candidates its own range asks for: results do not depend on which rows share a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.bins import Floats
from taqstore.quantization import Quantizer, integer_range
from taqstore.spread import Spread, mean_over, row_slices

Ints = npt.NDArray[np.int64]

OCTAVES = 12  # clip bounds down to 2**-12 of the range are tried
FINER = 4  # each refinement divides the spacing of the candidates by this
FINEST = 256  # step sizes per factor of two at which refinement ends
_PLACES = 16  # intervals between the places of zero first tried
_TIE = 1 + 1e-9  # errors this close are equal but for rounding; the wider range wins
_TABLE = 1 << 23  # float64 elements of counts or errors held at once: 64 MB


@dataclass(frozen=True)
class Scheme:
    """Kind of quantizer that is searched for.

    Parameters
    ----------
    bits
        2 to 16.
    symmetric
        Zero point 0 and signed integers; otherwise affine with unsigned ones.
    narrow_range
        Leave out the smallest integer (symmetric only).
    """

    bits: int = 8
    symmetric: bool = True
    narrow_range: bool = False

    @property
    def integers(self) -> tuple[int, int]:
        """Smallest and largest integer.

        Raises
        ------
        TaqError
            `bits` is out of range.
        """
        return integer_range(self.bits, signed=self.symmetric, narrow_range=self.narrow_range)

    @property
    def per_octave(self) -> int:
        """Candidate step sizes per factor of two."""
        return 32 if self.symmetric else 4

    def quantizer(self, step_size: npt.ArrayLike, zero_point: npt.ArrayLike) -> Quantizer:
        """Quantizer of these parameters; see `quantization.Quantizer`."""
        qmin, qmax = self.integers
        return Quantizer(np.asarray(step_size), np.asarray(zero_point, np.int64), qmin, qmax)

    def places(self) -> tuple[Ints, int]:
        """Zero points first tried, and the largest gap between them."""
        if self.symmetric:
            return np.zeros(1, np.int64), 0
        levels = (1 << self.bits) - 1
        gap = max(1, (levels + 1) // _PLACES)
        return np.unique(np.append(np.arange(0, levels, gap), levels)), gap

    def covering(self, low: Floats, high: Floats) -> Floats:
        """Step size of the quantizer that just covers [low, high] and 0."""
        qmin, qmax = self.integers
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        return np.maximum(-low, high) / qmax if self.symmetric else (high - low) / (qmax - qmin)


@dataclass(frozen=True)
class Grid:
    """Candidates: step sizes ``2**(octave / per_octave)``, each with every place of zero.

    Parameters
    ----------
    octave
        Ascending integers.
    per_octave
        How many of them make a factor of two.
    place
        Zero points.
    """

    octave: Ints
    per_octave: int
    place: Ints

    @property
    def step_size(self) -> Floats:
        """float64 ``(candidate,)``, largest first."""
        return np.repeat(np.exp2(self.octave[::-1] / self.per_octave), len(self.place))

    @property
    def zero_point(self) -> Ints:
        """int64 ``(candidate,)``."""
        return np.tile(self.place, len(self.octave))

    def quantizers(self, scheme: Scheme) -> Quantizer:
        """All candidates."""
        return scheme.quantizer(self.step_size, self.zero_point)

    def around(self, index: int, gap: int, scheme: Scheme) -> tuple[Grid, int]:
        """Finer grid around candidate `index`, with the gap of its zeros, from that of this one."""
        row, column = divmod(index, len(self.place))
        octave = int(self.octave[::-1][row]) * FINER + np.arange(-FINER, FINER + 1)
        finer = max(1, gap // FINER) if gap else 0
        place = self.place[column] + np.arange(-gap, gap + 1, finer or 1)
        # An affine grid has the integers 0 to qmax, and its zero is one of them.
        place = place[(place >= 0) & (place <= scheme.integers[1])]
        return Grid(octave, self.per_octave * FINER, place), finer


def error_table(
    counts: npt.NDArray[Any], spread: Spread, quantizers: Quantizer, *, power: float = 2.0
) -> Floats:
    """Summed error of every histogram under every quantizer.

    Parameters
    ----------
    counts
        ``(row, bin)``.
    spread
        Bins common to all rows.
    quantizers
        `step_size` and `zero_point` of shape ``(candidate,)``.

    Returns
    -------
    float64 ``(row, candidate)``: sums over values of ``|x - q(x)|**power``.
    """
    used = np.flatnonzero(counts.any(axis=0))
    return _table(counts[:, used].astype(np.float64), spread[used], quantizers, power)


def _table(held: Floats, bins: Spread, quantizers: Quantizer, power: float) -> Floats:
    table = np.empty((len(held), len(quantizers.step_size)))
    for part in row_slices(table.shape[1], held.shape[1]):
        some = quantizers[part]
        # Between -s/2 and s/2 everything becomes 0: one error for all candidates.
        half = some.step_size.min() / 2
        begin, end = np.searchsorted(bins.left, -half), np.searchsorted(bins.right, half, "right")
        end = max(begin, end)
        inner = bins[begin:end].error(some[:1], power=power)[0]
        table[:, part] = (held[:, begin:end] @ inner)[:, None]
        for side in (slice(begin), slice(end, None)):
            table[:, part] += held[:, side] @ bins[side].error(some, power=power).T
    return table


def occupied(counts: npt.NDArray[Any], spread: Spread) -> tuple[Floats, Floats]:
    """Outer ends (low, high) of the bins that hold anything, ``(row,)``; NaN where none does."""
    held = counts > 0
    first, last = held.argmax(axis=-1), held.shape[-1] - 1 - held[:, ::-1].argmax(axis=-1)
    some = held.any(axis=-1)
    rows = (np.arange(len(counts)),) if spread.left.ndim > 1 else ()
    low, high = spread.left[(*rows, first)], spread.right[(*rows, last)]
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def best_quantizer(
    counts: npt.NDArray[Any], spread: Spread, scheme: Scheme, *, power: float = 2.0
) -> Quantizer:
    """Quantizer of least expected ``|x - q(x)|**power`` for every histogram.

    Never worse than the one that covers the range; step sizes are resolved to 0.3 %, zero points
    to the integer.

    Parameters
    ----------
    counts
        ``(..., bin)``, integers or floats.
    spread
        Bins common to all histograms.
    power
        2: mean squared error. 2.4: the exponent of PyTorch's and LSQ-style weight searches.

    Returns
    -------
    Quantizer
        float64 `step_size` ``(...)``: NaN where nothing was counted, 0 where only zeros were.
    """
    rows = counts.reshape(-1, counts.shape[-1])
    step = np.full(len(rows), np.nan)
    zero = np.zeros(len(rows), np.int64)
    for part in row_slices(len(rows), rows.shape[-1], block=_TABLE):
        step[part], zero[part] = _best_rows(rows[part], spread, scheme, power)
    shape = counts.shape[:-1]
    return scheme.quantizer(step.reshape(shape), zero.reshape(shape))


def clip_ends(quantizer: Quantizer, scheme: Scheme) -> tuple[Floats, Floats]:
    """Range (lower, upper) from which the scheme makes this quantizer."""
    if scheme.symmetric:
        alpha = quantizer.step_size * quantizer.qmax
        return -alpha, alpha
    low, high = quantizer.levels
    return low * quantizer.step_size, high * quantizer.step_size


def _best_rows(
    counts: npt.NDArray[Any], spread: Spread, scheme: Scheme, power: float
) -> tuple[Floats, Ints]:
    low, high = occupied(counts, spread)
    step = scheme.covering(low, high)
    zero = np.zeros(len(step), np.int64)
    some = np.flatnonzero(step > 0)
    if not some.size:
        return step, zero
    used = np.flatnonzero(counts.any(axis=0))
    held, bins = counts[np.ix_(some, used)].astype(np.float64), spread[used]
    covering = _covering(low[some], step[some], scheme)
    found = _search(held, bins, scheme, step[some], power)
    wide = np.flatnonzero(found.step_size > covering.step_size / 2)
    covered, searched = (
        mean_over(held[wide], bins, _errors(q[wide], power)) for q in (covering, found)
    )
    kept = wide[covered <= searched * _TIE]
    step[some], zero[some] = found.step_size, found.zero_point
    step[some[kept]], zero[some[kept]] = covering.step_size[kept], covering.zero_point[kept]
    return step, zero


def _errors(quantizers: Quantizer, power: float) -> Callable[[Spread, slice], Floats]:
    return lambda bins, rows: bins.error(quantizers[rows], power=power)


def _covering(low: Floats, step: Floats, scheme: Scheme) -> Quantizer:
    if scheme.symmetric:
        return scheme.quantizer(step, np.zeros(len(step)))
    return scheme.quantizer(step, np.rint(-np.minimum(low, 0.0) / step))


def window(step: Floats, per_octave: int) -> tuple[Ints, Ints]:
    """Octaves (first, last) worth trying below covering step sizes, each ``(row,)``."""
    last = np.ceil(np.log2(step) * per_octave).astype(np.int64)
    return last - OCTAVES * per_octave, last


def _search(held: Floats, bins: Spread, scheme: Scheme, widest: Floats, power: float) -> Quantizer:
    first, last = window(widest, scheme.per_octave)
    places, gap = scheme.places()
    grid = Grid(np.arange(first.min(), last.max() + 1), scheme.per_octave, places)
    octave = np.repeat(grid.octave[::-1], len(places))
    winner = np.empty(len(held), np.int64)
    for part in row_slices(len(held), len(octave), block=_TABLE):
        table = _table(held[part], bins, grid.quantizers(scheme), power)
        table[(octave < first[part, None]) | (octave > last[part, None])] = np.inf
        winner[part] = _least(table)
    return scheme.quantizer(*_descend(held, bins, scheme, grid, gap, winner, power))


def _descend(
    held: Floats,
    bins: Spread,
    scheme: Scheme,
    grid: Grid,
    gap: int,
    winner: Ints,
    power: float,
) -> tuple[Floats, Ints]:
    """Refine the winners of a grid, rows that share one together."""
    if gap <= 1 and grid.per_octave >= FINEST:
        return grid.step_size[winner], grid.zero_point[winner]
    step, zero = np.empty(len(held)), np.empty(len(held), np.int64)
    for index in np.unique(winner):
        rows = np.flatnonzero(winner == index)
        finer, its_gap = grid.around(int(index), gap, scheme)
        members = held[rows]
        best = _least(_table(members, bins, finer.quantizers(scheme), power))
        step[rows], zero[rows] = _descend(members, bins, scheme, finer, its_gap, best, power)
    return step, zero


def _least(table: Floats) -> Ints:
    """First candidate of each row whose error is least, rounding apart."""
    least = table.min(axis=1, keepdims=True)
    winner: Ints = (table <= least * _TIE).argmax(axis=1)
    return winner

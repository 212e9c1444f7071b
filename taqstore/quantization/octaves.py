"""Summed errors of many histograms under many step sizes, by tables that every octave shares.

Bins of a float-bit-prefix histogram are twice as wide from one octave to the next. So the errors of
bins under a step size are those one octave lower under half of it, times four: one table of step
sizes between 1 and 2 and of the bins from a quarter step to beyond the clip bound serves all. What
lies below a quarter step becomes 0, what lies above is clipped: of both, sums of powers tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from taqstore.quantization.candidates import Ints, Scheme
from taqstore.quantization.counts import Part
from taqstore.quantization.spread import Spread
from taqstore.statistics.bins import Floats

# Octaves of a window below that of the step size: values under half a step become 0.
_BELOW = 2
_MOST_MANTISSA_BITS = 6  # tables of finer bins would be larger than what they save


@dataclass(frozen=True)
class Octaves:
    """Counts of rows in bins of equal relative width, octave by octave.

    Parameters
    ----------
    counts
        float64 ``(row, octave, sign, slot)``, positive values first, outwards from zero.
    first
        Exponent of the first octave, ``2**first`` to ``2**(first + 1)``.
    below
        ``(row, octave + 1)``: sums of x^2 in the octaves before each.
    above
        ``(row, octave + 1, sign, power)``: sums of ``|x|**power`` from each octave on, 0 to 2.
    rest
        Counts in the bins that are of no octave: zero, and values that are subnormal.
    """

    counts: Floats
    first: int
    below: Floats
    above: Floats
    rest: Part

    @classmethod
    def of(cls, part: Part) -> Octaves | None:
        """Those of counts in common bins; None where the bins are of another kind."""
        places = _places(part.spread)
        if places is None:
            return None
        octave, sign, slot, mantissa_bits = places
        regular = octave > _NOWHERE
        first, last = int(octave[regular].min()), int(octave[regular].max())
        shape = (len(part.counts), last - first + 1, 2, 1 << mantissa_bits)
        counts = np.zeros(shape)
        counts[:, octave[regular] - first, sign[regular], slot[regular]] = part.counts[:, regular]
        below, above = _sums(counts, first)
        rest = np.flatnonzero(~regular)
        return cls(counts, first, below, above, Part(part.counts[:, rest], part.spread[rest]))

    def __getitem__(self, rows: npt.NDArray[np.integer] | slice) -> Octaves:
        """Some of the rows."""
        kept = (self.counts[rows], self.first, self.below[rows], self.above[rows])
        return Octaves(*kept, self.rest[rows])

    @property
    def mantissa_bits(self) -> int:
        """Of which every octave has ``2**mantissa_bits`` bins of either sign."""
        return int(self.counts.shape[-1]).bit_length() - 1

    def errors(
        self, scheme: Scheme, octave: int, per_octave: int, *, whole: bool = False
    ) -> Floats:
        """Summed squared errors under step sizes ``2**(octave + phase / per_octave)``.

        Parameters
        ----------
        whole
            Give a row the same sums to the bit whatever octaves other rows have; takes longer.

        Returns
        -------
        ``(row, phase)``, phases from 0 to ``per_octave - 1``; without those of `rest`.
        """
        table = window_errors(scheme, self.mantissa_bits, per_octave, 0)[:-1]
        inside, at = self._inside(scheme, octave)
        held = self.counts[:, inside].reshape(len(self.counts), -1)
        if whole:
            held = self.windows(scheme, np.full(len(self.counts), octave))[0]
            at = slice(None)
        summed = product(held, table[:, at].reshape(len(table), -1).T)
        summed *= 4.0**octave
        summed += self.below[:, inside.start, None]
        step = np.exp2(octave + np.arange(per_octave) / per_octave)
        return summed + clipped(self.above[:, inside.stop], step, scheme)

    def windows(self, scheme: Scheme, octave: Ints) -> tuple[Floats, Floats, Floats]:
        """The bins about a step size of each row in octave ``(row,)``, and what lies around.

        Returns
        -------
        Counts ``(row, bin)`` as of `window_errors`, and of each row's window `below` and `above`.
        """
        rows, _, *each = self.counts.shape
        found = np.zeros((rows, _octaves(scheme), *each))
        below, above = np.empty(rows), np.empty((rows, *self.above.shape[2:]))
        for one in np.unique(octave):
            some = np.flatnonzero(octave == one)
            inside, at = self._inside(scheme, int(one))
            found[some, at] = self.counts[some, inside]
            below[some], above[some] = self.below[some, inside.start], self.above[some, inside.stop]
        return found.reshape(rows, -1), below, above

    def _inside(self, scheme: Scheme, octave: int) -> tuple[slice, slice]:
        """The octaves of a window that are there, and their places in it."""
        begin, most = octave - _BELOW - self.first, self.counts.shape[1]
        start, stop = (min(max(end, 0), most) for end in (begin, begin + _octaves(scheme)))
        return slice(start, stop), slice(start - begin, stop - begin)


_NOWHERE = -(1 << 20)
# Multiplications up to which OpenBLAS stays in the thread that calls it.
_ALONE = 1 << 18


def product(rows: Floats, columns: Floats) -> Floats:
    """``rows @ columns``, some rows at a time.

    A library of linear algebra starts threads for larger products. Where several analyses run at
    once these wait for each other longer than the product takes.
    """
    (count, inner), width = rows.shape, columns.shape[1]
    if not inner * width:
        return np.zeros((count, width))
    size = max(2, _ALONE // max(1, inner * width))
    size -= size % 8 if size > 8 else 0  # the library takes as many together, all alike
    whole = count - count % size
    found = np.empty((count, width))
    blocks = rows[:whole].reshape(-1, size, inner)
    np.matmul(blocks, columns, out=found[:whole].reshape(-1, size, width))
    if whole < count:  # as many rows as above, for sums to be made alike
        last = np.zeros((size, inner))
        last[: count - whole] = rows[whole:]
        found[whole:] = (last @ columns)[: count - whole]
    return found


def _places(spread: Spread) -> tuple[Ints, Ints, Ints, int] | None:
    """Octave (`_NOWHERE`: none), sign and slot of bins, and mantissa bits; None where none fits."""
    if spread.points or spread.left.ndim > 1 or not spread.left.size:
        return None
    positive = spread.left >= 0
    if not (positive | (spread.right <= 0)).all():
        return None
    near = np.where(positive, spread.left, -spread.right)
    width = spread.right - spread.left
    octave = np.frexp(near)[1].astype(np.int64) - 1
    share, exponent = np.frexp(np.ldexp(width, -octave))
    fits = (near > 0) & (share == 0.5)
    if not fits.any():
        return None
    mantissa_bits = 1 - int(exponent[fits].min())
    slots = np.ldexp(near, mantissa_bits - octave) - (1 << max(mantissa_bits, 0))
    fits &= (exponent == 1 - mantissa_bits) & (slots == np.rint(slots))
    if not 0 <= mantissa_bits <= _MOST_MANTISSA_BITS or 2 * fits.sum() < fits.size:
        return None
    slot = np.where(fits, slots, 0).astype(np.int64)
    return np.where(fits, octave, _NOWHERE), (~positive).astype(np.int64), slot, mantissa_bits


def _sums(counts: Floats, first: int) -> tuple[Floats, Floats]:
    """`below` and `above` of `Octaves`."""
    rows, octaves, _, slots = counts.shape
    left = 1 + np.arange(slots) / slots
    right = left + 1 / slots
    powers = np.stack([np.ones(slots), (left + right) / 2, (left**2 + left * right + right**2) / 3])
    scale = np.exp2(first + np.arange(octaves))
    each = counts @ powers.T
    each *= scale[:, None, None] ** np.arange(3)
    below = np.zeros((rows, octaves + 1))
    np.cumsum(each[..., 2].sum(axis=-1), axis=1, out=below[:, 1:])
    above = np.zeros((rows, octaves + 1, 2, 3))
    above[:, :-1] = np.cumsum(each[:, ::-1], axis=1)[:, ::-1]
    return below, above


def _octaves(scheme: Scheme) -> int:
    """Octaves of a window: two under the step size, and to beyond the outermost level."""
    return _BELOW + scheme.bits + 1


def clipped(above: Floats, step: Floats, scheme: Scheme) -> Floats:
    """Summed squares of what reaches beyond the outermost levels.

    Parameters
    ----------
    above
        ``(row, sign, power)``.
    step
        ``(step,)``, or ``(row, step)``.
    """
    sides = []
    for sign, level in enumerate((scheme.integers[1], -scheme.integers[0])):
        end = level * step
        zeroth, first, second = (above[:, sign, power, None] for power in range(3))
        sides.append(second - 2 * end * first + end * end * zeroth)
    total: Floats = sides[0] + sides[1]
    return total


@lru_cache(maxsize=64)
def window_errors(scheme: Scheme, mantissa_bits: int, per_octave: int, margin: int) -> Floats:
    """Mean squared errors of the bins of a window under step sizes ``2**(phase / per_octave)``.

    Returns
    -------
    ``(phase, octave, sign, slot)``, phases from ``-margin`` to ``per_octave + margin``.
    """
    phase = np.arange(-margin, per_octave + margin + 1)
    found = errors_in_window(scheme, mantissa_bits, np.exp2(phase / per_octave))
    found.flags.writeable = False
    return found


def errors_in_window(scheme: Scheme, mantissa_bits: int, step: Floats) -> Floats:
    """As `window_errors` under other step sizes ``(step,)``, all of about 1 to 2."""
    slots = 1 << mantissa_bits
    octave = np.exp2(np.arange(_octaves(scheme)) - _BELOW)
    left = (octave[:, None] * (1 + np.arange(slots) / slots)).ravel()
    edges = np.append(left, 2 * octave[-1])
    tried = scheme.quantizer(step, np.zeros(len(step), np.int64))
    positive = Spread(edges[:-1], edges[1:]).error(tried)
    negative = Spread(-edges[:0:-1], -edges[-2::-1]).error(tried)[:, ::-1]
    shape = (len(step), len(octave), slots)
    return np.stack([positive.reshape(shape), negative.reshape(shape)], axis=2)

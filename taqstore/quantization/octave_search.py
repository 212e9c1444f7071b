"""The search of `search` for symmetric quantizers on bins of equal relative width.

It tries the same step sizes and finds the same ones, from tables that all octaves share, and looks
at known values only where they can decide: what is without them is no more than with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from taqstore.quantization.candidates import FINER, FINEST, Ints, Scheme, window
from taqstore.quantization.counts import Part, in_order
from taqstore.quantization.octaves import Octaves, clipped, errors_in_window, product, window_errors
from taqstore.quantization.spread import row_slices
from taqstore.statistics.bins import Floats

_TIE = 1 + 1e-9  # errors this close are equal but for rounding; the wider range wins


def best_steps(octaves: Octaves, own: list[Part], scheme: Scheme, covering: Floats) -> Floats:
    """Step size of least squared error of every row, no wider than `covering` but for rounding.

    Parameters
    ----------
    octaves, own
        Counts of rows: in common bins, and in bins of their own.
    scheme
        A symmetric one.
    covering
        Step sizes ``(row,)`` that cover the ranges; above 0.
    """
    per_octave = scheme.per_octave
    place = _first(octaves, own, scheme, covering)
    base = place // per_octave
    search = _Windows(octaves, own, scheme, base)
    place -= base * per_octave
    least = np.zeros(len(place))
    while per_octave < FINEST:
        per_octave *= FINER
        place, least = search.refined(place, per_octave)
    step = np.exp2((base * per_octave + place) / per_octave)
    wide = np.flatnonzero(step > covering / 2)
    if not wide.size:
        return step
    some = [part[wide] for part in own]
    covered = _errors_at(octaves[wide], some, scheme, covering[wide])
    kept = wide[covered <= least[wide] * _TIE]
    step[kept] = covering[kept]
    return step


def _errors_at(octaves: Octaves, own: list[Part], scheme: Scheme, step: Floats) -> Floats:
    """Summed errors of rows under a step size each, ``(row,)``."""
    base = np.frexp(step)[1].astype(np.int64) - 1
    windows = _Windows(octaves, own, scheme, base)
    errors = errors_in_window(scheme, octaves.mantissa_bits, np.ldexp(step, -base))
    inside = np.einsum("rb,rb->r", windows.held, errors.reshape(len(step), -1))
    whole = windows.whole(inside[:, None], step[:, None])[:, 0]
    return whole + _own_errors(own, np.arange(len(step)), step, scheme)


def _first(octaves: Octaves, own: list[Part], scheme: Scheme, covering: Floats) -> Ints:
    """The best of a coarse grid ``(row,)``, in steps of ``1 / scheme.per_octave`` octaves."""
    per_octave = scheme.per_octave
    first, last = window(covering, per_octave)
    # Rows that end in one octave lie together: each octave is tried for a slice of rows.
    order = np.argsort(last, kind="stable")
    first, last, octaves = first[order], last[order], octaves[order]
    tried, table = grid_errors(octaves, scheme, first, last)
    table[(tried < first[:, None]) | (tried > last[:, None])] = np.inf
    table = table[:, ::-1]
    steps = np.broadcast_to(np.exp2(tried[::-1] / per_octave), table.shape)
    place, _ = _least(table, steps, [part[order] for part in own], scheme)
    found = np.empty(len(order), np.int64)
    found[order] = tried[::-1][place]
    return found


def grid_errors(
    octaves: Octaves, scheme: Scheme, first: Ints, last: Ints, *, whole: bool = False
) -> tuple[Ints, Floats]:
    """Summed errors of rows under step sizes of a grid, without bins that rows have of their own.

    Parameters
    ----------
    first, last
        Which are asked for of each row, in steps of ``1 / scheme.per_octave`` octaves; both ascend.
    whole
        As of `Octaves.errors`.

    Returns
    -------
    tried
        int64 ``(candidate,)``, ascending.
    table
        ``(row, candidate)``; unknown, or infinite, where it was not asked for.
    """
    per_octave = scheme.per_octave
    base, end = int(first.min()) // per_octave, int(last.max()) // per_octave + 1
    tried = np.arange(base * per_octave, end * per_octave)
    table = np.full((len(first), len(tried)), np.inf)
    for octave in range(base, end):
        least, most = octave * per_octave, (octave + 1) * per_octave
        rows = slice(int(np.searchsorted(last, least)), int(np.searchsorted(first, most)))
        if rows.start < rows.stop:
            at = slice(least - tried[0], most - tried[0])
            table[rows, at] = octaves[rows].errors(scheme, octave, per_octave, whole=whole)
    _add_rest(table, octaves.rest, scheme, np.exp2(tried / per_octave), whole=whole)
    return tried, table


def run_table(
    octaves: Octaves, own: list[Part], scheme: Scheme, first: Ints, last: Ints, octave: Ints
) -> Floats:
    """Summed squared errors of rows under step sizes ``2**(octave / scheme.per_octave)``.

    Parameters
    ----------
    octaves, own
        Counts of rows: in common bins, and in bins of their own.
    first, last
        Octaves that are asked for of each row, ``(row,)``.
    octave
        ``(candidate,)``, those of all rows.

    Returns
    -------
    ``(row, candidate)``; infinite where it was not asked for. A row has the same to the bit
    whichever others there are.
    """
    order = np.argsort(last, kind="stable")
    ascending = np.minimum.accumulate(first[order][::-1])[::-1]
    tried, table = grid_errors(octaves[order], scheme, ascending, last[order], whole=True)
    found = np.empty((len(order), len(octave)))
    found[order] = table[:, octave - tried[0]]
    asked = (octave >= first[:, None]) & (octave <= last[:, None])
    found[~asked] = np.inf
    row, column = np.nonzero(asked)
    step = np.exp2(octave / scheme.per_octave)[column]
    found[row, column] += _own_errors(own, row, step, scheme)
    return found


def _add_rest(
    table: Floats, rest: Part, scheme: Scheme, step: Floats, *, whole: bool = False
) -> None:
    """Errors of the bins next to zero, the same for all that are within half a step."""
    if not rest.counts.shape[1]:
        return
    inner = len(step) if whole else int(np.searchsorted(step / 2, _reach(rest)))
    table[:, inner:] += _squares(rest)[:, None]
    if inner:
        tried = scheme.quantizer(step[:inner], np.zeros(inner))
        table[:, :inner] += product(rest.counts, rest.spread.error(tried).T)


def _least(table: Floats, steps: Floats, own: list[Part], scheme: Scheme) -> tuple[Ints, Floats]:
    """First candidate of each row whose error is least, rounding apart, and that error.

    Parameters
    ----------
    table, steps
        Errors without those of `own`, and step sizes ``(row, candidate)``.
    """
    row = np.arange(len(table))
    if own:
        at = table.argmin(axis=1)
        bound = table[row, at] + _own_errors(own, row, steps[row, at], scheme)
        some = np.nonzero(table <= (bound * _TIE)[:, None])
        whole = np.full(table.shape, np.inf)
        whole[some] = table[some] + _own_errors(own, some[0], steps[some], scheme)
        table = whole
    least = table.min(axis=1)
    winner: Ints = (table <= (least * _TIE)[:, None]).argmax(axis=1)
    return winner, table[row, winner]


def _own_errors(own: list[Part], row: npt.NDArray[np.intp], step: Floats, scheme: Scheme) -> Floats:
    """Summed errors of bins that rows have of their own, of some rows under a step size each."""
    found = np.zeros(len(row))
    for part in own:
        held = np.flatnonzero(np.asarray(part.counts.any(axis=1))[row])
        for some in row_slices(len(held), part.counts.shape[1]):
            one = held[some]
            tried = scheme.quantizer(step[one], np.zeros(len(one)))
            errors = part.spread[row[one]].error(tried)
            found[one] += np.einsum("rb,rb->r", part.counts[row[one]], errors)
    return found


class _Windows:
    """The bins of every row about a step size in one octave."""

    def __init__(self, octaves: Octaves, own: list[Part], scheme: Scheme, base: Ints) -> None:
        self.octaves, self.own, self.scheme, self.base = octaves, own, scheme, base
        self.held, self.below, self.above = octaves.windows(scheme, base)

    def refined(self, place: Ints, per_octave: int) -> tuple[Ints, Floats]:
        """Best place on a grid `FINER` times as fine as the one of `place`, and its error."""
        margin = per_octave // 8
        table = window_errors(self.scheme, self.octaves.mantissa_bits, per_octave, margin)
        table = table.reshape(len(table), -1)
        offset = np.arange(FINER, -FINER - 1, -1)
        inside = np.empty((len(place), len(offset)))
        order = np.argsort(place, kind="stable")
        for alike in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
            at = int(place[alike[0]]) * FINER + margin
            errors = table[at - FINER : at + FINER + 1][::-1]
            inside[alike] = product(self.held[alike], errors.T)
        tried = place[:, None] * FINER + offset
        steps = np.exp2((self.base[:, None] * per_octave + tried) / per_octave)
        winner, least = _least(self.whole(inside, steps), steps, self.own, self.scheme)
        return tried[np.arange(len(tried)), winner], least

    def whole(self, inside: Floats, steps: Floats) -> Floats:
        """Summed errors ``(row, candidate)`` but for those of bins that rows have of their own."""
        table = inside * np.exp2(2 * self.base)[:, None] + self.below[:, None]
        table += clipped(self.above, steps, self.scheme)
        rest = self.octaves.rest
        inner = steps.min(axis=1, initial=np.inf) / 2 >= _reach(rest)
        table += (_squares(rest) * inner)[:, None]
        near = np.flatnonzero(~inner)
        if near.size:
            tried = self.scheme.quantizer(steps[near], np.zeros(steps[near].shape))
            table[near] += np.einsum("rb,rcb->rc", rest.counts[near], rest.spread.error(tried))
        return table


def _squares(part: Part) -> Floats:
    """Sums of x^2 ``(row,)``."""
    return in_order(part.counts * part.spread.square())


def _reach(rest: Part) -> float:
    """Largest magnitude in these bins."""
    spread = rest.spread
    return float(max(-spread.left.min(initial=0.0), spread.right.max(initial=0.0)))

"""How an answer moves as it sees more: nested subsets, the power law of moves, what 4 times makes.

All of this is about logarithms of positive answers: a move of 0.02 is one of 2 %. Of an
exchangeable sample, moves between nested subsets drawn from it are those between fresh samples of
these sizes, whatever is left of the sample; so moves from n to 4 n are measured for 4 n up to its
size, and beyond that extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, hypot, inf, isfinite, log, nan, sqrt

import numpy as np
import numpy.typing as npt

from taqstore.statistics.bins import Floats

LEAST = 4
"""Fewest batches that a move to 4 times as many is measured with."""
FACTOR = 4
# Moves fall as n^-p. An average has p = 1/2, an extremum of a light tail less. Short curves tell
# little of p: what they tell is weighed against this, with this standard deviation.
_AVERAGE, _EXTREMUM, _PRIOR = 0.5, 1 / 3, 0.1
_MONOTONE = 0.95
# Doublings that the law is fitted to, the last ones: extrema follow one power only nearby.
_FITTED = 3
# How far, beside what the fit knows, the power nearby may be from the one further out.
_LAW = 0.05
_Z90 = 1.6449
_FARTHEST = 1e9

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Subsets:
    """Subsets of a sample, nested: each order of it cut into runs of 1, 2, 4, ... and all.

    Parameters
    ----------
    members
        bool ``(subset, item)``; none is there twice, all of the sample is the last.
    orders
        By order, by size, the subsets that are its runs.
    """

    members: npt.NDArray[np.bool_]
    orders: tuple[dict[int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, items: int, *, orders: int, seed: int) -> Subsets:
        """Those of some random orders of so many items."""
        rng, known, found = np.random.default_rng(seed), dict[bytes, int](), []
        rows: list[npt.NDArray[np.bool_]] = []
        for _ in range(orders):
            order, runs = rng.permutation(items), dict[int, tuple[int, ...]]()
            for size in (1 << k for k in range(items.bit_length())):
                numbers = []
                for start in range(0, items - size + 1, size):
                    row = np.zeros(items, bool)
                    row[order[start : start + size]] = True
                    number = known.setdefault(row.tobytes(), len(rows))
                    if number == len(rows):
                        rows.append(row)
                    numbers.append(number)
                runs[size] = tuple(numbers)
            found.append(runs)
        members = np.array([*rows, np.ones(items, bool)])
        return cls(members, tuple(found))

    @property
    def sizes(self) -> Ints:
        """Items of every subset."""
        return np.asarray(self.members.sum(axis=1), np.int64)

    def pairs(self, size: int, factor: int) -> Ints:
        """``(pair, 2)`` subsets of `size` and of `factor` times that, which hold them."""
        found = {
            (part, whole)
            for runs in self.orders
            for place, whole in enumerate(runs.get(size * factor, ()))
            for part in runs[size][place * factor : (place + 1) * factor]
        }
        return np.array(sorted(found), np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Moves:
    """Moves of some answers between nested subsets, and what they say of 4 times the sample.

    Parameters
    ----------
    answers
        Logarithms ``(subset, cell)``, all finite.
    subsets
        What they are of.
    """

    answers: Floats
    subsets: Subsets

    @property
    def items(self) -> int:
        """Size of the sample."""
        return int(self.subsets.members.shape[1])

    @cached_property
    def sizes(self) -> list[int]:
        """1, 2, 4, ... up to the sample."""
        return [1 << k for k in range(self.items.bit_length())]

    def each(self, size: int, factor: int) -> Floats:
        """Of every pair the root mean square over cells of its move."""
        pairs = self.subsets.pairs(size, factor)
        moved = self.answers[pairs[:, 1]] - self.answers[pairs[:, 0]]
        found: Floats = np.sqrt(np.square(moved).mean(axis=1))
        return found

    def moved(self, size: int, factor: int = FACTOR) -> float:
        """Root mean square over cells and pairs of moves from `size` to `factor` times it."""
        each = self.each(size, factor)
        return float(np.sqrt(np.square(each).mean())) if each.size else nan

    def deviation(self, size: int) -> Floats:
        """Of every subset of a size, the root mean square over cells of what all makes else."""
        rows = self.answers[self.subsets.sizes == size] - self.answers[-1]
        found: Floats = np.sqrt(np.square(rows).mean(axis=1))
        return found

    @cached_property
    def _fitted(self) -> Floats:
        """``(doubling, 2)``: logarithms of the sizes and moves that the law is fitted to."""
        moves = [(n, self.moved(n, 2)) for n in self.sizes if 2 * n <= self.items]
        found = np.log([pair for pair in moves if pair[1] > 0][-_FITTED:])
        return found.reshape(-1, 2)

    @cached_property
    def _spread(self) -> float:
        """Standard deviation of the logarithm of one move about the root mean square."""
        logs = [
            np.log(each[each > 0] / self.moved(n))
            for n in self.sizes
            if FACTOR * n <= self.items and (each := self.each(n, FACTOR)).any()
        ]
        return float(np.sqrt(np.mean([np.square(one).mean() for one in logs]))) if logs else nan

    @cached_property
    def power(self) -> tuple[float, float]:
        """The p of ``n^-p`` and its standard deviation, from doublings and what is usual."""
        usual = _EXTREMUM if self._grows else _AVERAGE
        if len(self._fitted) < 2 or not isfinite(self._spread):
            return usual, _PRIOR
        x, y = self._fitted.T - self._fitted.mean(axis=0)[:, None]
        certain, before = float((x**2).sum()) / max(self._spread**2, 1e-6), 1 / _PRIOR**2
        slope = -float((x * y).sum() / (x**2).sum())
        both = certain + before
        return (slope * certain + usual * before) / both, 1 / sqrt(both)

    @cached_property
    def _grows(self) -> bool:
        """Whether more never makes an answer less, as of an extremum."""
        moved = [
            self.answers[pairs[:, 1]] - self.answers[pairs[:, 0]]
            for n in self.sizes
            if len(pairs := self.subsets.pairs(n, 2))
        ]
        return bool(moved) and float(np.mean([(m >= 0).mean() for m in moved])) >= _MONOTONE

    @cached_property
    def _joint(self) -> float:
        """Correlation of a doubling's move with the next one's: 0 of averages."""
        found = []
        for n in self.sizes:
            if FACTOR * n <= self.items:
                one, two, both = self.moved(n, 2), self.moved(2 * n, 2), self.moved(n)
                if one * two > 0:
                    found.append((both**2 - one**2 - two**2) / (2 * one * two))
        return float(np.clip(np.mean(found), -1, 1)) if found else 0.0

    def expected(self, size: float) -> float:
        """The move from `size` to 4 times it, by the power law through all that was measured."""
        if not len(self._fitted):
            return 0.0
        p, _ = self.power
        x, y = self._fitted.mean(axis=0)
        one, two = (exp(y - p * (log(n) - x)) for n in (size, 2 * size))
        return sqrt(max(one**2 + two**2 + 2 * self._joint * one * two, 0.0))

    def interval(self, size: float) -> tuple[float, float]:
        """Where 90 % of single moves from `size` to 4 times it lie."""
        if not len(self._fitted):
            return 0.0, 0.0
        far = log(size) - float(self._fitted[:, 0].mean())
        unsure = hypot(self.power[1], _LAW)
        # A move varies, and so does what it is predicted from.
        wide = _Z90 * hypot(self._spread, self._spread, unsure * far)
        most = self.expected(size)
        return most * exp(-wide), most * exp(wide)

    def enough(self, tolerance: float) -> float:
        """Least size whose expected move is below a tolerance; infinite where out of sight."""
        first = self.expected(1)
        if first < tolerance:
            return 1.0
        p, _ = self.power
        if p <= 0 or log(first / tolerance) / p > log(_FARTHEST):
            return inf
        return float(ceil((first / tolerance) ** (1 / p) * (1 - 1e-12)))

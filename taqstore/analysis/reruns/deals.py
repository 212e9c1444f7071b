"""Images dealt anew, and a verdict from what the deals give.

Two runs that differ in nothing but their seeds are one heap of images dealt into two hands. How a
number that compares two hands falls out when the heap is dealt again at random tells what chance
does to it, whatever its distribution: a permutation test (Pitman 1937). That it is the largest of
all `n` deals happens by chance with probability ``1 / n``, exactly, for a comparison of any kind.
Many linears are judged at once by the largest of their standardized numbers in each deal (Westfall
and Young 1993), so that the probability is of one false alarm anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# dB added to a standard deviation: linears that move by less than this are told apart by nothing.
_RESOLVED = 0.01


def hands(first: int, second: int, *, count: int) -> tuple[int, int]:
    """How many images of either run to deal: as many of both, or what `count` other deals take.

    The range of many images is wider than that of a few, which is no drift but hides it: the
    largest of 64 images is not that of 16. So hands are alike in size where images allow.
    """
    few, many = sorted((first, second))
    size = few
    while size < many and comb(few + size, few) <= count:
        size += 1
    return (few, size) if first <= second else (size, few)


def deal(first: int, second: int, count: int, *, seed: int) -> Ints:
    """Ways to deal ``first + second`` images, each an order of them: the first hand comes first.

    Returns
    -------
    int64 ``(deal, first + second)``: hands as they are, then at most `count` others at random;
    every other one, once, where there are no more of them.
    """
    images = np.arange(first + second)
    others = comb(len(images), second) - 1
    rng = np.random.default_rng(seed)
    if others > count:
        return np.stack([images, *(rng.permutation(images) for _ in range(count))])
    found = [images]
    for hand in islice(combinations(images[::-1].tolist(), second), 1, None):
        rest = rng.permutation(np.setdiff1d(images, hand))
        found.append(np.concatenate([rest, rng.permutation(np.array(hand, np.int64))]))
    return np.stack(found)


@dataclass(frozen=True)
class Standing:
    """How the hands as they are stand among all deals.

    Parameters
    ----------
    usual
        float64 ``(linear,)``: mean over the other deals.
    most
        float64 ``(linear,)``: the most that another deal gives.
    beyond
        bool ``(linear,)``: stands out further than any linear does in any other deal.
    leads
        Whether the mean over linears is more than in any other deal.
    """

    usual: Floats
    most: Floats
    beyond: npt.NDArray[np.bool_]
    leads: bool


def standing(values: npt.NDArray[Any], *, floor: float) -> Standing:
    """Judge numbers of deals ``(deal, linear)``, of which row 0 is the hands as they are.

    Parameters
    ----------
    floor
        What is below does not stand out, in any deal.
    """
    known = np.nan_to_num(values, nan=0.0, posinf=1e3, neginf=-1e3)
    spread = np.sqrt(known.var(axis=0) + _RESOLVED**2)
    score = np.where(known >= floor, (known - known.mean(axis=0)) / spread, -np.inf)
    bar = score[1:].max(initial=-np.inf)
    beyond = (score[0] > bar) if len(values) > 1 else known[0] >= floor
    others = known[1:] if len(values) > 1 else np.full_like(known, np.nan)
    means = known.clip(-100, 100).mean(axis=1)
    leads = bool(means[0] > means[1:].max(initial=-np.inf))
    return Standing(others.mean(axis=0), others.max(axis=0), beyond, leads)

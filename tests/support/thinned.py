"""Cases that prove the same thing: a part of them that has each kind; all with TAQSTORE_EXPLORE."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from random import Random
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
EXPLORE = bool(os.environ.get("TAQSTORE_EXPLORE"))
"""Whether a run looks for what is new, however long it takes."""


def crossed(first: Iterable[A], second: Iterable[B]) -> list[tuple[A, B]]:
    """Pairs in which every entry of both stands, for lists of which one does not ask the other."""
    one, other = list(first), list(second)
    if EXPLORE:
        return list(product(one, other))
    return [(one[n % len(one)], other[n % len(other)]) for n in range(max(len(one), len(other)))]


def in_turn(cases: Iterable[A], turn: int, turns: int) -> list[A]:
    """The cases of one of several turns; they are shuffled before they are dealt out."""
    found = list(cases)
    return found if EXPLORE else Random(0).sample(found, len(found))[turn % turns :: turns]

"""Bit widths to choose from: a budget that asks for a choice, and what was chosen in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


def halfway(choices: Iterable[float]) -> float:
    """Budget that no width meets by itself: halfway from the middle one to the next fewer bits.

    Any answer to it says which units go without. A budget that is one of the widths is often best
    spent on that width alone: two bits less cost more than two bits more gain.

    >>> halfway((8, 6, 4)), halfway((8, 4)), halfway((8,))
    (5.0, 6.0, 8.0)
    """
    widths = sorted(set(choices))
    middle = len(widths) // 2
    return float(widths[max(middle - 1, 0)] + widths[middle]) / 2


def by_lot(errors: Sequence[float], choices: Sequence[int], average: float) -> float:
    """Mean error to be expected of a budget whose bits are dealt by lot.

    Units get one of the two widths about the average, as many of each as it pays for. An average
    that is one of the widths is that width for all.

    Parameters
    ----------
    errors
        Mean over units of the error at each of `choices`.
    choices
        Ascending.

    >>> by_lot((0.5, 0.25, 0.0), (4, 6, 8), 5)
    0.375
    """
    return float(np.interp(average, choices, errors))


def in_words(widths: npt.ArrayLike) -> str:
    """How many units got each width; 0 and NaN, where nothing was counted, are none.

    >>> in_words([6, 4, 4, 0]), in_words([6.0, 6.0])
    ('2 at 4 and 1 at 6', 'all 2 at 6')
    """
    found = np.asarray(widths, np.float64)
    known, counts = np.unique(found[found > 0], return_counts=True)
    if len(known) == 1:
        return f"all {counts[0]} at {known[0]:g}"
    *parts, last = (f"{count} at {width:g}" for width, count in zip(known, counts, strict=True))
    return f"{', '.join(parts)} and {last}"


def why_alike(widths: npt.ArrayLike, choices: Iterable[int]) -> str:
    """Why all units got one width; empty where they did not, or there is but one unit.

    Parameters
    ----------
    widths
        As in `in_words`.
    choices
        What there was to choose from.
    """
    found = np.asarray(widths, np.float64)
    known = found[found > 0]
    if len(known) < 2 or len(np.unique(known)) > 1:
        return ""
    if known[0] == min(choices):
        return "the budget buys no more than the fewest bits"
    if known[0] == max(choices):
        return "the budget buys the most bits for all"
    return "none gains as much by more bits as another loses by fewer"

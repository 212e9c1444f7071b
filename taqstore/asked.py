"""What a user asks for, checked: words of a list, numbers of a range, options that go together.

The command line and the library refuse the same, by the same sentences: what is refused here is
misuse, which the command line answers with exit code 2.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from taqstore.errors import MisuseError, problem

MAX_SEED = 2**32 - 1
"""Largest seed of `numpy.random.seed`, which DiffusionKit calls, and so of all that is seeded."""


def word_of(value: Any, known: Collection[str], what: str) -> str:
    """The value, where it is one of the words that are known.

    Raises
    ------
    MisuseError
        It is none of them.

    >>> word_of("poly", ("poly", "lut"), "schedule rule")
    'poly'
    """
    if isinstance(value, str) and value in known:
        return value
    near = get_close_matches(str(value), list(known), n=1)
    meant = f"did you mean {near[0]}? There is {', '.join(known)}" if near else ", ".join(known)
    raise MisuseError(problem(f"{what} {value!r} is not known", remedy=meant))


def whole_number(
    value: Any, what: str, *, least: int | None = None, most: int | None = None
) -> int:
    """The value as an integer of a range, ends included.

    Raises
    ------
    MisuseError
        It is no integer, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise MisuseError(problem(f"{what} must be an integer", found=repr(value)))
    _inside(int(value), what, least, most, above=False, below=False)
    return int(value)


def number(
    value: Any,
    what: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: bool = False,
    below: bool = False,
) -> float:
    """The value as a finite float of a range.

    Parameters
    ----------
    above, below
        Leave `least`, or `most`, itself out.

    Raises
    ------
    MisuseError
        It is no number, not finite, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise MisuseError(problem(f"{what} must be a number", found=repr(value)))
    if not math.isfinite(value):
        raise MisuseError(problem(f"{what} must be finite", found=str(value)))
    _inside(float(value), what, least, most, above=above, below=below)
    return float(value)


def _inside(
    value: float, what: str, least: float | None, most: float | None, *, above: bool, below: bool
) -> None:
    low = least is None or (value > least if above else value >= least)
    high = most is None or (value < most if below else value <= most)
    if not (low and high):
        text = range_text(least, most, above=above, below=below)
        raise MisuseError(problem(f"{what} must be {text}", found=f"{value:.17g}"))


def range_text(
    least: float | None, most: float | None, *, above: bool = False, below: bool = False
) -> str:
    """A range in words.

    >>> range_text(0, 1, above=True)
    'above 0, at most 1'
    >>> range_text(2, 16)
    '2 to 16'
    >>> range_text(0, MAX_SEED)
    '0 to 4294967295'
    """
    if least is not None and most is not None and not (above or below):
        return f"{digits(least)} to {digits(most)}"
    ends = []
    if least is not None:
        ends.append(f"{'above' if above else 'at least'} {digits(least)}")
    if most is not None:
        ends.append(f"{'below' if below else 'at most'} {digits(most)}")
    return ", ".join(ends)


def digits(end: float) -> str:
    """An end of a range: all digits of an integer, such as the largest seed."""
    return str(int(end)) if float(end).is_integer() else f"{end:g}"


def ordered(first: float, second: float, names: tuple[str, str]) -> None:
    """Refuse a pair whose first is above its second.

    Raises
    ------
    MisuseError
        It is.
    """
    if first > second:
        what = f"{names[0]} must not be above {names[1]}"
        raise MisuseError(problem(what, found=f"{first:g} and {second:g}"))

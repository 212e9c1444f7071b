"""What a user asks for, checked: words of a list, numbers of a range, options that go together.

The command line and the library refuse the same, by the same sentences: what is refused here is
misuse, which the command line answers with exit code 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from taqstore.errors import MisuseError, problem

MAX_SEED = 2**32 - 1
"""Largest seed of `numpy.random.seed`, which DiffusionKit calls, and so of all that is seeded."""

# Of a name that somebody may have mistyped, and of a list of names in one message; characters.
_LONGEST, _ROOM = 200, 300


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
    raise MisuseError(problem(f"{what} {value!r} is not known", remedy=meant(value, known)))


def words_of(values: Iterable[Any], known: Collection[str], what: str) -> tuple[str, ...]:
    """The values, where each is a word that is known; raises as `word_of`."""
    return tuple(word_of(value, known, what) for value in values)


def meant(value: Any, known: Iterable[object]) -> str:
    """What to do about a name that is not known: which one was meant, and which there are.

    Everything that refuses a name says this, as the remedy.

    >>> meant("scale", ("bits", "scales"))
    'did you mean scales? There is bits, scales'
    >>> meant("x", ("bits", "scales"))
    'there is bits, scales'
    """
    names = list(dict.fromkeys(map(str, known)))
    near = nearest(value, names)
    if near:
        return f"did you mean {near}? There is {listed(names)}"
    return f"there is {listed(names)}" if names else ""


def nearest(value: Any, known: Iterable[str]) -> str:
    """The name that a value is most like; empty where it is like none.

    Case, and which of ``-``, ``_`` and ``.`` is written, do not count; the last parts of a path
    stand for the first path that ends so. A path like none is taken for the first that ends as it
    does: another source may hold the same site.

    >>> nearest("activations/mlp.fc2", ("latents", "pooled/timestep_stats/mlp.fc2"))
    'pooled/timestep_stats/mlp.fc2'
    """
    text, plain = str(value).strip(), dict[str, str]()
    for name in known:
        plain.setdefault(_plain(name), name)
    wanted = _plain(text.strip("/"))
    if not wanted or len(wanted) > _LONGEST:
        return ""
    ends = [name for key, name in plain.items() if key.endswith(f"/{wanted}")]
    if wanted not in plain and ends:
        return ends[0]
    near = get_close_matches(wanted, list(plain), n=1)
    if near:
        return plain[near[0]]
    _, slash, last = wanted.rpartition("/")
    return next((name for key, name in plain.items() if slash and key.endswith(f"/{last}")), "")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.casefold())


def listed(names: Collection[str]) -> str:
    """Names for a message: all of them, or the first where they are many.

    >>> listed([])
    'none'
    """
    text = ", ".join(names) or "none"
    if len(text) <= _ROOM:
        return text
    *shown, _ = text[:_ROOM].split(", ")
    cut = f"{', '.join(shown)}, ... ({len(names)} in all)"
    return text if len(text) <= len(cut) else cut


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
        raise MisuseError(problem(f"{what} must be {text}", found=_written(value)))


def _written(value: float) -> str:
    try:
        return f"{value:.17g}"
    except OverflowError:  # an integer that no float holds
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else "too much"


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

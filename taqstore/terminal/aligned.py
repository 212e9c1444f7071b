"""Aligned plain text, as wide as it is or as a terminal has room for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TextIO

from taqstore.terminal.width import room

_GAP, _DOTS = 2, "..."
_SHORTEST = 16
"""Characters that a cell of text keeps at least."""
_NUMBERS = re.compile(r"[-+.,\dexX%/() ]*|nan|-?inf")
"""What is never cut: half a number is another number."""

Column = Sequence[str]


def print_aligned(
    columns: Sequence[Column], right: Sequence[bool], *, stream: TextIO | None = None
) -> None:
    """Print columns of equal length side by side, each as wide as its widest cell.

    Parameters
    ----------
    columns
        Texts from top to bottom, the heading first.
    right
        Of each column, whether it stands at its right edge, as numbers do.
    stream
        Where to; standard output by default.
    """
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = zip(row, widths, right, strict=True)
        line = "  ".join(c.rjust(w) if to_right else c.ljust(w) for c, w, to_right in cells)
        print(line.rstrip(), file=stream)


def print_fitted(
    columns: Sequence[Column],
    right: Sequence[bool],
    *,
    constant: Callable[[int], bool] | None = None,
    spare: Sequence[int] = (),
    stream: TextIO | None = None,
) -> None:
    """Print columns as `print_aligned` does; on a terminal that is narrower, what it has room for.

    There, columns that say the same in all rows are said in one line above; then long cells of text
    are cut, never numbers, and in the first column none that would look like another, which a line
    below says; then columns that still do not fit are named there. A single row becomes a line for
    each column. `--wide` shows all (`width.show_everything`).

    Parameters
    ----------
    columns, right, stream
        As of `print_aligned`.
    constant
        Whether a column, by its number, says the same in all rows, also those that are not among
        these; by default its cells tell.
    spare
        Numbers of columns that are left out first, in this order; then others, from the right.
    """
    width = room(stream)
    if width is None or _total(columns, range(len(columns))) <= width:
        print_aligned(columns, right, stream=stream)
        return
    if len(columns[0]) < 3:
        _print_upright(columns, width, stream)
        return
    same = constant or (lambda i: len(set(columns[i][1:])) == 1)
    kept = [i for i in range(len(columns)) if not same(i)] or [0]
    others = [i for i in range(len(columns)) if i not in kept]
    said = [f"{columns[i][0]} {columns[i][1] or '(empty)'}" for i in others]
    if said:
        _print_list("all rows: ", said, width, stream)
    shown, left = _fitting(columns, right, kept, spare, width)
    print_aligned(shown, [right[i] for i in kept if i not in left], stream=stream)
    if left:
        names = [columns[i][0] for i in kept if i in left]
        _print_list("no room for ", names, width, stream, end="; --wide shows all")
    elif shown != [list(columns[i]) for i in kept]:
        print("cut at ...; --wide shows all", file=stream)


def cut(text: str, length: int) -> str:
    """Text of `length` characters at most: the first words of several, both ends of one.

    >>> cut("second_moments/mlp.fc2", 16)
    'second_...lp.fc2'
    >>> cut("a photo of an astronaut", 16)
    'a photo of ...'
    """
    if len(text) <= length:
        return text
    if length <= len(_DOTS):
        return text[:length]
    words = text[: length - len(_DOTS)].rfind(" ")
    if words > 0:
        return text[: words + 1] + _DOTS
    tail = (length - len(_DOTS)) // 2
    return text[: length - len(_DOTS) - tail] + _DOTS + text[len(text) - tail :]


def _total(columns: Sequence[Column], chosen: Sequence[int]) -> int:
    return sum(max(map(len, columns[i])) for i in chosen) + _GAP * (len(chosen) - 1)


def _print_upright(columns: Sequence[Column], width: int, stream: TextIO | None) -> None:
    """One row: a line for each column, nothing cut that a second line can hold."""
    widest = max(len(column[0]) for column in columns)
    inside = max(_SHORTEST, width - widest - _GAP)
    for heading, *cells in columns:
        lines = textwrap.wrap("".join(cells), inside) or [""]
        for number, line in enumerate(lines):
            print(f"{'' if number else heading:<{widest}}  {line}".rstrip(), file=stream)


def _print_list(
    head: str, names: Sequence[str], width: int, stream: TextIO | None, *, end: str = ""
) -> None:
    """One line of talk about columns, folded where it must be."""
    text = head + ", ".join(names) + end
    for line in textwrap.wrap(text, width, subsequent_indent="  "):
        print(line, file=stream)


def _fitting(
    columns: Sequence[Column],
    right: Sequence[bool],
    kept: Sequence[int],
    spare: Sequence[int],
    width: int,
) -> tuple[list[list[str]], set[int]]:
    """Columns with their cells cut to fit, and the numbers of those that were left out."""
    widest = {i: max(map(len, columns[i])) for i in kept}
    least = {i: widest[i] if right[i] else _least(columns[i]) for i in kept}
    least[kept[0]] = _distinct(columns[kept[0]], least[kept[0]])
    order = [i for i in spare if i in kept] + [i for i in reversed(kept) if i not in spare]
    left: set[int] = set()
    for i in (i for i in order if i != kept[0]):
        if _needed(least, left) <= width:
            break
        left.add(i)
    stay = [i for i in kept if i not in left]
    if len(stay) == 1:
        least[stay[0]] = min(least[stay[0]], width)
    widths = _shared_out({i: widest[i] for i in stay}, least, width - _GAP * (len(stay) - 1))
    return [[cut(cell, widths[i]) for cell in columns[i]] for i in stay], left


def _needed(least: dict[int, int], left: set[int]) -> int:
    stay = [size for i, size in least.items() if i not in left]
    return sum(stay) + _GAP * (len(stay) - 1)


def _shared_out(widths: dict[int, int], least: dict[int, int], room: int) -> dict[int, int]:
    """Widths that add up to `room` at most: what has most to give gives first, the first last."""
    found, first = dict(widths), next(iter(widths))
    while sum(found.values()) > room:
        may = [i for i in found if found[i] > least[i]]
        if not may:
            break
        found[max(may, key=lambda i: (i != first, found[i] - least[i]))] -= 1
    return found


def _least(column: Column) -> int:
    """Width to which a column of text may be cut."""
    whole = [len(cell) for cell in column[1:] if _NUMBERS.fullmatch(cell)]
    return max(len(column[0]), *whole, min(_SHORTEST, max(map(len, column))))


def _distinct(column: Column, width: int) -> int:
    """Width at which cells that differ still do when they are cut."""
    distinct = set(column[1:])
    while len({cut(cell, width) for cell in distinct}) < len(distinct):
        width += 1
    return width


def print_folded(head: str, text: str, *, stream: TextIO | None = None) -> None:
    """Print a line of text, folded under its head where the terminal is narrower."""
    width = room(stream)
    if width is None or len(head) + len(text) <= width:
        print(f"{head}{text}".rstrip(), file=stream)
        return
    lines = textwrap.wrap(text, max(_SHORTEST, width - len(head)), break_on_hyphens=False)
    for number, line in enumerate(lines):
        print(f"{' ' * len(head) if number else head}{line}", file=stream)

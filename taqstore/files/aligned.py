"""Aligned plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO


def print_aligned(
    columns: Sequence[Sequence[str]], right: Sequence[bool], *, stream: TextIO | None = None
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

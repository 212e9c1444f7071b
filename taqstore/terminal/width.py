"""How much room a table has: that of the terminal it is printed on, or any."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_LEAST = 20
_everything = False


def show_everything(asked: bool) -> None:
    """Whether tables are printed whole, however wide they are: `--wide`."""
    global _everything
    _everything = asked


def room(stream: TextIO | None = None) -> int | None:
    """Characters of a line of `stream` (standard output by default); None: as many as it takes.

    The variable COLUMNS of the environment says it, or the terminal does. A pipe or a file takes
    any width.
    """
    if _everything:
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said[:6]) > 0:
        return max(_LEAST, int(said[:6]))
    to = sys.stdout if stream is None else stream
    try:
        columns = os.get_terminal_size(to.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return None
    return max(_LEAST, columns) if columns > 0 else None

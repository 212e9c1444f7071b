"""Errors a user can act on.

`TaqError` is what the command line turns into one line and exit code 1. A message says what went
wrong, where, what was found and what to do; `problem` puts these four in a fixed order.
"""

from __future__ import annotations


class TaqError(Exception):
    """Something the user can mend: a file, a store, a request. Everything else is a bug."""


class SourceError(TaqError, ValueError):
    """A source file is damaged, unknown or contradicts its neighbours."""


class StoreError(TaqError):
    """A store is missing, damaged, of another format, or busy."""


class LayoutError(StoreError, ValueError):
    """A write does not fit the group it is meant for: dims, dtype, alignment, coordinates."""


class MissingError(TaqError, KeyError):
    """A group, variable, layer or coordinate value is not in the store."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; users should see the sentence itself.
        return str(self.args[0]) if self.args else ""


def problem(what: str, *, where: str = "", found: str = "", remedy: str = "") -> str:
    """Compose one line: `where: what (found ...); remedy`.

    >>> problem("no key 'x'", where="0001_003.npz", found="y", remedy="write it again")
    "0001_003.npz: no key 'x' (found y); write it again"
    """
    head = f"{where}: {what}" if where else what
    middle = f" (found {found})" if found else ""
    tail = f"; {remedy}" if remedy else ""
    return " ".join(f"{head}{middle}{tail}".split())

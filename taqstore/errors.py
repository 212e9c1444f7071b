"""Errors a user can act on.

`TaqError` is what the command line turns into one line and exit code 1, `MisuseError` 2. A message
says what went wrong, where, what was found and what to do; `problem` puts these in a fixed order.
"""

from __future__ import annotations

DEBUG = "TAQSTORE_DEBUG"
"""Variable of the environment: where it is set, one line of ours comes with its traceback."""

FILE_SIZE = "file_size"
"""Attribute of what is logged for each file of a store that is read: there are many."""

LONGEST = 2000
"""Characters of a line of ours: what a file holds is shown, and never floods a terminal."""


class TaqError(Exception):
    """Something the user can mend: a file, a store, a request. Everything else is a bug."""


class MisuseError(TaqError):
    """What was asked for makes no sense, whatever the data: exit code 2 on the command line.

    An unknown word, a number out of its range, options that exclude or need each other.
    """


class SourceError(TaqError, ValueError):
    """A source file is damaged, unknown or contradicts its neighbours."""


class StoreError(TaqError):
    """A store is missing, damaged, of another format, or busy."""


class SupersededError(StoreError):
    """Another writer has changed in the meantime what was to be changed."""


class NewerError(StoreError):
    """A store, or a group of it, is of a format that this version does not know."""


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
    middle = f" (found {_cut(found, LONGEST // 2)})" if found else ""
    tail = f"; {remedy}" if remedy else ""
    return printable(_cut(f"{head}{middle}", LONGEST - len(tail)) + tail)


def printable(text: str, *, longest: int = LONGEST) -> str:
    """Text as one line that a terminal shows and does not obey, of `longest` characters at most.

    White space becomes single spaces, other control characters and half surrogates their escapes.

    >>> printable("one\\n  two\\x1b[2J")
    'one two\\\\x1b[2J'
    """
    line = " ".join(_cut(text, 4 * longest).split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return _cut(line, longest)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: max(0, length - 4)]} ..."

"""Conditional and range requests: what of a file is asked for, and whether it is known."""

from __future__ import annotations

import re

# More digits are no place in a file, and take long to read as a number.
_ONE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII)


class UnsatisfiableError(Exception):
    """The range begins where the file has ended."""


def part_of(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and number of bytes that a `Range` asks for; None for the whole file.

    Several ranges at once, other units and what cannot be understood are answered by the whole, as
    HTTP has it.

    Raises
    ------
    UnsatisfiableError
        None of it is there.

    >>> part_of("bytes=2-3", 10), part_of("bytes=-4", 10), part_of("bytes=8-99", 10)
    ((2, 2), (6, 4), (8, 2))
    >>> part_of(None, 10), part_of("bytes=0-1,4-5", 10), part_of("bytes=3-2", 10)
    (None, None, None)
    """
    found = _ONE.fullmatch(header) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        if not length:
            raise UnsatisfiableError
        return size - length, length
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableError
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1


def is_known(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` names a tag: the client has what it would get."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return tags == ["*"] or etag in tags


def may_continue(header: str | None, etag: str) -> bool:
    """Whether a range may be served under an `If-Range`; times and weak tags prove nothing."""
    return header is None or (header.strip() == etag and not etag.startswith("W/"))

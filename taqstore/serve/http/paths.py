"""Addresses taken apart before anything is made of them."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

# A separator, a zero byte or a dot that is written as a code is no name of anything here.
_DISGUISED = re.compile(rb"%(2f|5c|00|2e)|[\\\x00]", re.IGNORECASE)


def parts_of(raw: bytes) -> tuple[str, ...] | None:
    """Names of a path as it was sent, each decoded once; None if it leads anywhere else.

    An empty last name (a slash at the end) is kept.

    >>> parts_of(b"/zarr/run%20a.zarr/x"), parts_of(b"/zarr/"), parts_of(b"/a//b")
    (('zarr', 'run a.zarr', 'x'), ('zarr', ''), None)
    >>> [parts_of(path) for path in (b"/a/../b", b"/a/%2e%2e/b", b"/a%2fb", b"/a/.", b"/%ff")]
    [None, None, None, None, None]
    """
    if not raw.startswith(b"/") or _DISGUISED.search(raw):
        return None
    try:
        parts = tuple(unquote_to_bytes(part).decode() for part in raw[1:].split(b"/"))
    except UnicodeDecodeError:
        return None
    if any(part in (".", "..") for part in parts) or not all(parts[:-1]):
        return None
    return parts if not any("/" in p or "\\" in p or not p.isprintable() for p in parts) else None

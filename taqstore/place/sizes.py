"""Sizes for people."""

from __future__ import annotations


def format_bytes(count: int) -> str:
    """A size for people: 1.5 MB; powers of 1000 as disks are sold.

    >>> format_bytes(1_500_000)
    '1.5 MB'
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

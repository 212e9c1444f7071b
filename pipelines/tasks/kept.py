"""A model that a process has loaded, kept for what is asked of it next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Made = TypeVar("Made")
_kept: dict[Any, Any] = {}
_keeping = False


@contextmanager
def keeping_models() -> Iterator[None]:
    """Keep the last model that is loaded until another is, beyond the end of the block.

    For workers of a cluster, which do one task of a run after another.
    """
    global _keeping
    before, _keeping = _keeping, True
    try:
        yield
    finally:
        _keeping = before


def kept(key: Any, make: Callable[[], Made]) -> Made:
    """What was made under this key last, where models are kept; else made now."""
    if not _keeping:
        return make()
    if key not in _kept:
        _kept.clear()  # before: there may be room for one
        _kept[key] = make()
    made: Made = _kept[key]
    return made

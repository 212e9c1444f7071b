"""Watch modules at work without changing them: each gets a class of its own for a while.

Of all ways to hook an MLX module, replacing the instance's `__class__` by a subclass is the one
that leaves the parameter tree, `isinstance` and `load_weights` as they are; to undo it is to put
the class back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from .failures import own_code

Hook = Callable[[tuple[Any, ...], Any], None]
Call = Callable[[tuple[Any, ...]], Any]


@contextmanager
def observing(hooks: Iterable[tuple[Any, Hook]]) -> Iterator[None]:
    """Call ``hook(arguments, result)`` after every call of a module, until the block ends.

    Parameters
    ----------
    hooks
        ``(module, hook)`` pairs; a module may stand in several.

    Notes
    -----
    The classes are put back in reverse order whatever happens, an exception in a hook included.
    """
    with _changed((module, partial(_watched, hook=hook)) for module, hook in hooks):
        yield


@contextmanager
def standing_in(calls: Iterable[tuple[Any, Call]]) -> Iterator[None]:
    """Call ``call(arguments)`` in place of each of these modules, until the block ends."""
    with _changed((module, partial(_replaced, call=call)) for module, call in calls):
        yield


@contextmanager
def _changed(classes: Iterable[tuple[Any, Callable[[type], type]]]) -> Iterator[None]:
    """Give each module the class that is made of its own, until the block ends."""
    original: list[tuple[Any, type]] = []
    try:
        for module, made in classes:
            original.append((module, type(module)))
            module.__class__ = made(type(module))
        yield
    finally:
        for module, kind in reversed(original):
            module.__class__ = kind


def _watched(kind: type, hook: Hook) -> type:
    run: Callable[..., Any] = kind.__call__

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        result = run(self, *arguments, **options)
        with own_code():
            hook(arguments, result)
        return result

    return type(kind.__name__, (kind,), {"__call__": call})


def _replaced(kind: type, call: Call) -> type:
    def stand_in(self: Any, *arguments: Any, **options: Any) -> Any:
        return call(arguments)

    return type(kind.__name__, (kind,), {"__call__": stand_in})

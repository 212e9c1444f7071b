"""What is kept in memory: bounded in bytes, made once however many ask."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from typing import Any


class Memory:
    """Values by key; what was used least lately makes room. Safe to use from several threads.

    Parameters
    ----------
    most
        Bytes of all values together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, tuple[Future[Any], int]] = {}
        self._total = 0

    @property
    def bytes(self) -> int:
        """Of all values that are kept now."""
        return self._total

    @property
    def largest(self) -> int:
        """Bytes of the largest value that is kept: one alone may not drive out all others."""
        return self.most // 2

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of a key, made now if it is not kept.

        Those who ask while it is made wait for it, and get its error if it has one; errors are not
        kept. What is larger than `largest` is handed out and not kept.
        """
        me = threading.get_ident()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            future, maker = self._making.get(key, (None, me))
            if future is None:
                mine: Future[Any] = Future()
                self._making[key] = mine, me
        if future is not None:
            if maker == me:
                raise RuntimeError(f"{key} is asked for by what makes it")
            return future.result()
        try:
            value = make()
        except BaseException as error:
            self._made(key)
            mine.set_exception(error)
            raise
        self._put(key, value)
        self._made(key)
        mine.set_result(value)
        return value

    def forget(self, unless: Callable[[Any], bool]) -> None:
        """Drop the values of all keys but some."""
        with self._lock:
            for key in [key for key in self._values if not unless(key)]:
                self._total -= self._values.pop(key)[1]

    def _made(self, key: Hashable) -> None:
        with self._lock:
            del self._making[key]

    def _put(self, key: Hashable, value: Any) -> None:
        size = weight(value)
        if size > self.largest:
            return
        with self._lock:
            self._values[key] = value, size
            self._total += size
            while self._total > self.most:
                self._total -= self._values.popitem(last=False)[1][1]


def weight(value: Any) -> int:
    """Bytes of a value, about: those of its arrays, texts and containers."""
    if isinstance(value, str | bytes | bytearray):
        return sys.getsizeof(value)
    if is_dataclass(value) and not isinstance(value, type):
        return 64 + sum(weight(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping) and type(value) is dict:
        return 64 + sum(weight(key) + weight(one) + 40 for key, one in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return 64 + sum(weight(one) + 8 for one in value)
    if hasattr(value, "memory_usage"):  # a table of pandas
        used = value.memory_usage(deep=True)
        return int(used if isinstance(used, int) else used.sum())
    return int(getattr(value, "nbytes", 0)) or sys.getsizeof(value)

"""Many requests at once: what a far place takes for one it takes for sixteen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_AT_ONCE = 16
_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


def at_once(call: Callable[[_Asked], _Answer], asked: Sequence[_Asked]) -> list[_Answer]:
    """`call` of each, in their order; what the first that fails raises is raised.

    Parameters
    ----------
    call
        A request; it may come from several threads.
    asked
        What of. One is asked for here and now, without a thread.
    """
    if len(asked) < 2:
        return [call(one) for one in asked]
    with ThreadPoolExecutor(min(_AT_ONCE, len(asked)), "taqstore-requests") as pool:
        coming = [pool.submit(call, one) for one in asked]
        try:
            return [one.result() for one in coming]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

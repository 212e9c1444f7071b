"""Work in parts, dealt out to whoever computes: this process, its threads, workers of a cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

_Part = TypeVar("_Part")
_Answer = TypeVar("_Answer")

AHEAD = 4
"""Parts a worker has waiting beside the one that it is at: few, for they are held in memory."""

NO_DASHBOARD: dict[str, Any] = {
    "dashboard_address": None,
    "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
}
"""Options of a `LocalCluster` that shows nothing of itself.

Its scheduler serves HTTP all the same, by default on port 8787 for the whole network.
"""


class Each(Protocol):
    """A function of every part, in the order of the parts: as `map`, whoever does the work.

    Functions and parts go to other processes: they are picklable, and hold addresses, not data.
    """

    def __call__(
        self, function: Callable[[_Part], _Answer], parts: Iterable[_Part], /
    ) -> Iterator[_Answer]:
        """Answers as they come, in order."""
        ...


def one_by_one(
    function: Callable[[_Part], _Answer], parts: Iterable[_Part], /
) -> Iterator[_Answer]:
    """Every part in this thread, when its answer is asked for."""
    return map(function, parts)


def dealt(pool: Executor, workers: int) -> Each:
    """Parts given to an executor, some ahead of those that are done.

    Parameters
    ----------
    pool
        Of `concurrent.futures`, or what is like it: `distributed.Client.get_executor()`.
    workers
        How many parts it does at a time. Parts are taken from their iterable, in this thread, when
        there is room for them: all of a store's need not be there at once.
    """

    def each(function: Callable[[_Part], _Answer], parts: Iterable[_Part], /) -> Iterator[_Answer]:
        waiting: deque[Future[Any]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(function, part))
                if len(waiting) > workers * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # an error, or Ctrl-C: what has not begun need not
            for future in waiting:
                future.cancel()

    return each


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def beside(threads: int = 1) -> Iterator[Callable[..., Future[Any]]]:
    """What gives a call to threads of its own, in order, as `Executor.submit` does.

    At the end all of it is done; after an error, or Ctrl-C, what had begun.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="taqstore-beside")
    failed = True
    try:
        yield lambda function, *given: pool.submit(copy_context().run, function, *given)
        failed = False
    finally:
        pool.shutdown(cancel_futures=failed)


def one_behind(function: Callable[[_Part], _Answer], parts: Iterable[_Part], /) -> list[_Answer]:
    """As ``[function(part) for part in parts]``: each is worked at while the next is made.

    Parts are made in this thread, which Ctrl-C ends; one other thread does the work, in order. What
    fails first in that list is raised here too, and what came before it is done.
    """
    answers: list[_Answer] = []
    with beside() as submit:
        before: Future[_Answer] | None = None
        try:
            for part in parts:
                if before is not None:
                    answers.append(before.result())
                before = submit(function, part)
        except Exception:
            if before is not None:
                before.result()
            raise
        return answers if before is None else [*answers, before.result()]

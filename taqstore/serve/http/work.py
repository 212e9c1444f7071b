"""Work that a request waits for: a few threads, a short queue, a limit in time."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

_T = TypeVar("_T")
_Drop: TypeAlias = Callable[[Any], None]
# Answers that nobody waited for to the end: a retry finds its own.
_UNCLAIMED = 8


class BusyError(Exception):
    """There is more to do than fits the queue; asked again in a while, it may be taken."""


class TooLongError(Exception):
    """It takes longer than anyone waits; the work goes on, and a retry finds what it gave."""


class Work:
    """Threads that end with the process, whatever they are at.

    Those of `concurrent.futures` are waited for when Python ends: a computation of a minute would
    keep Ctrl-C waiting for a minute.

    Parameters
    ----------
    threads
        How much is worked on at once.
    waiting
        How much may wait besides.
    seconds
        How long an answer is waited for.
    """

    def __init__(self, *, threads: int, waiting: int, seconds: float) -> None:
        self.threads, self.seconds, self._most = threads, seconds, threads + waiting
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken = 0
        self._late: OrderedDict[Hashable, tuple[Future[Any], _Drop | None]] = OrderedDict()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"work-{number}", daemon=True).start()

    async def run(
        self,
        task: Callable[[], _T],
        *,
        key: Hashable = None,
        dropped: Callable[[_T], None] | None = None,
    ) -> _T:
        """What a function gives, run in one of the threads.

        Parameters
        ----------
        key
            Of a retry: what came too late for one who asked is given to the next who asks for the
            same, once. None: it is dropped.
        dropped
            Called with what is dropped: nobody asked again before others came too late.

        Raises
        ------
        BusyError, TooLongError
            As they say.
        """
        future: Future[_T] = self._future(task, key)
        waiting = awaited(future)
        try:
            return await asyncio.wait_for(waiting, self.seconds)
        except TimeoutError:
            if future.done():  # just now, or the error is its own
                return future.result()
            self._keep(key, future, dropped)
            raise TooLongError from None

    def _future(self, task: Callable[[], Any], key: Hashable) -> Future[Any]:
        with self._lock:
            late = None if key is None else self._late.pop(key, None)
            if late is not None:
                return late[0]
            if self._taken >= self._most:
                raise BusyError
            self._taken += 1
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: self._left())
        self._queue.put((future, task))
        return future

    def _left(self) -> None:
        with self._lock:
            self._taken -= 1

    def _keep(self, key: Hashable, late: Future[Any], dropped: _Drop | None) -> None:
        gone = [(late, dropped)]
        if key is not None:
            with self._lock:
                # Two may have waited for the same: one of them is enough to be kept.
                gone = [] if key not in self._late else [self._late[key]]
                self._late[key] = late, dropped
                while len(self._late) > _UNCLAIMED:
                    gone.append(self._late.popitem(last=False)[1])
        for future, drop in gone:
            if drop is not None and future is not self._late.get(key, (None,))[0]:
                future.add_done_callback(partial(_drop, drop))

    def _work(self) -> None:
        while True:
            future, task = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = task()
            except BaseException as error:  # the one who asked is told, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, task


def awaited(future: Future[_T]) -> asyncio.Future[_T]:
    """What a thread will give, to wait for in the loop; giving up waiting stops nothing.

    That of asyncio complains where the loop has ended before the thread.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[_T] = loop.create_future()

    def told() -> None:
        if waiting.done():  # nobody waits any more
            return
        if (error := future.exception()) is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(future.result())

    def tell(_: Future[_T]) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(told)

    future.add_done_callback(tell)
    return waiting


def _drop(dropped: _Drop, done: Future[Any]) -> None:
    if done.exception() is None:
        dropped(done.result())

"""Work is bounded in number and in time, and what came too late is there for a retry."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from taqstore.serve.http.work import BusyError, TooLongError, Work


class Task:
    """Gives its value when it is let go."""

    def __init__(self, value: Any = None) -> None:
        self.begun, self.let_go, self.calls, self.value = (
            threading.Event(),
            threading.Event(),
            0,
            value,
        )

    def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.let_go.wait(30)
        return self.value


def test_more_than_fits_is_refused_and_fits_again_later() -> None:
    async def ask() -> list[Any]:
        work, first = Work(threads=1, waiting=1, seconds=30), Task(1)
        one = asyncio.create_task(work.run(first))
        two = asyncio.create_task(work.run(lambda: 2))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await work.run(lambda: 3)
        first.let_go.set()
        return [await one, await two, await work.run(lambda: 4)]

    assert asyncio.run(ask()) == [1, 2, 4]


def test_what_came_too_late_is_given_to_a_retry_once() -> None:
    async def ask() -> None:
        work, slow = Work(threads=1, waiting=1, seconds=0.05), Task("late")
        with pytest.raises(TooLongError):
            await work.run(slow, key="a")
        with pytest.raises(TooLongError):  # still at it, and not begun again
            await work.run(slow, key="a")
        slow.let_go.set()
        work.seconds = 30
        assert await work.run(slow, key="a") == "late"
        assert slow.calls == 1
        assert await work.run(slow, key="a") == "late"
        assert slow.calls == 2

    asyncio.run(ask())


def test_a_slot_stays_taken_until_the_work_has_ended() -> None:
    async def ask() -> None:
        work, slow = Work(threads=1, waiting=0, seconds=0.05), Task()
        with pytest.raises(TooLongError):
            await work.run(slow)
        with pytest.raises(BusyError):
            await work.run(lambda: 1)
        slow.let_go.set()
        work.seconds = 30
        for _ in range(1000):
            try:
                assert await work.run(lambda: 1) == 1
                return
            except BusyError:
                await asyncio.sleep(0.01)
        raise AssertionError("the slot was never free again")

    asyncio.run(ask())


def test_what_is_dropped_can_be_cleaned_away() -> None:
    gone: list[str] = []
    done = threading.Event()

    async def ask() -> None:
        work, slow = Work(threads=1, waiting=1, seconds=0.05), Task("a file")
        with pytest.raises(TooLongError):
            await work.run(slow, dropped=lambda value: (gone.append(value), done.set()))
        slow.let_go.set()

    asyncio.run(ask())
    assert done.wait(30)
    assert gone == ["a file"]


def test_errors_of_the_work_are_its_own() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    async def ask() -> None:
        with pytest.raises(TimeoutError, match="its own"):
            await Work(threads=1, waiting=1, seconds=30).run(fail)

    asyncio.run(ask())

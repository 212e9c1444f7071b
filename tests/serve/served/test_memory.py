"""What is kept is bounded, made once, and never handed to another key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from taqstore.serve.served.memory import Memory, weight


def made(size: int) -> Callable[[], bytes]:
    return lambda: bytes(size)


def test_the_bound_holds_and_the_least_used_goes_first() -> None:
    memory, calls = Memory(10_000), list[int]()

    def ask(number: int) -> None:
        memory.get(number, lambda: calls.append(number) or bytes(3000))

    for number in (1, 2, 3):
        ask(number)
    ask(1)
    ask(4)  # 2 goes
    assert memory.bytes <= memory.most
    ask(1)
    ask(3)
    assert calls == [1, 2, 3, 4]
    ask(2)
    assert calls == [1, 2, 3, 4, 2]


def test_what_is_too_large_is_handed_out_and_not_kept() -> None:
    memory = Memory(1000)
    memory.get("small", made(10))
    assert len(memory.get("large", made(5000))) == 5000
    assert memory.bytes < 1000
    assert memory.get("small", made(99)) == bytes(10)


def test_it_is_made_once_however_many_ask() -> None:
    memory, calls, everyone = Memory(10_000), list[int](), threading.Barrier(8)

    def make() -> str:
        calls.append(1)
        gate.wait(30)
        return "made"

    def ask(_: int) -> str:
        everyone.wait(30)
        return memory.get("key", make)

    gate = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(8)]
        threading.Timer(0.2, gate.set).start()
        assert [one.result(30) for one in asked] == ["made"] * 8
    assert len(calls) == 1


def test_errors_are_told_to_all_who_wait_and_not_kept() -> None:
    memory = Memory(10_000)
    with pytest.raises(ZeroDivisionError):
        memory.get("key", lambda: 1 // 0)
    assert memory.get("key", lambda: 1) == 1


def test_who_asks_for_what_it_is_making_is_told() -> None:
    memory = Memory(10_000)
    with pytest.raises(RuntimeError, match="asked for by what makes it"):
        memory.get("key", lambda: memory.get("key", lambda: 1))


def test_what_is_forgotten_is_made_anew() -> None:
    memory = Memory(10_000)
    memory.get(("a", 1), made(10))
    memory.get(("b", 1), made(10))
    memory.forget(lambda key: key[0] == "b")
    assert memory.get(("a", 1), made(20)) == bytes(20)
    assert memory.get(("b", 1), made(20)) == bytes(10)


def test_weights_are_those_of_the_content() -> None:
    array = np.zeros(1000)
    assert weight(array) >= 8000
    assert weight(xr.Dataset({"x": ("y", array)})) >= 8000
    assert weight({"a": [array, array]}) >= 16000
    assert weight(pd.DataFrame({"a": array})) >= 8000
    assert weight([0.5] * 1000) >= 24000
    assert weight("a" * 1000) >= 1000

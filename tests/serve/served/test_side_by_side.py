"""Groups are asked at the same time, and each answers, or refuses, for itself."""

from __future__ import annotations

import os
import threading

import pytest

from taqstore.errors import MissingError
from taqstore.serve.served.side_by_side import side_by_side


def test_two_are_asked_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    both = threading.Barrier(2, timeout=20)

    def ask(path: str) -> str:
        both.wait()
        return path.upper()

    found = side_by_side(ask, ["a", "b", "c", "d"])
    assert [found(path) for path in ("d", "c", "b", "a")] == ["D", "C", "B", "A"]


@pytest.mark.parametrize("cores", [1, 2])
def test_one_that_refuses_leaves_the_others(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)

    def ask(path: str) -> int:
        if path == "b":
            raise MissingError("b lacks it")
        return ord(path)

    found = side_by_side(ask, ["a", "b", "c"])
    assert (found("a"), found("c")) == (97, 99)
    with pytest.raises(MissingError, match="b lacks it"):
        found("b")

"""What is done beside the model is done in order, and what fails there ends the run."""

from __future__ import annotations

from threading import current_thread
from typing import Any

import pytest
from taqstore.pipelines.collect.beside import beside

from support.live_capture import needs_models


@needs_models
@pytest.mark.parametrize("threaded", [True, False])
def test_everything_is_done_in_order(threaded: bool) -> None:
    import mlx.core as mx

    seen, threads = list[Any](), set[object]()

    def note(value: Any) -> None:
        seen.append(value)
        threads.add(current_thread())

    with beside(threaded) as behind:
        for number in range(50):
            behind.then(lambda number=number: note(number))
            x = mx.full((2,), float(number))
            mx.eval(x)
            behind.take(lambda some: note([float(t[0]) for _, t in some]), [(None, x)])
    assert seen == [one for number in range(50) for one in (number, [float(number)])]
    assert (current_thread() in threads) is not threaded


@pytest.mark.parametrize("last", [True, False])
def test_what_fails_is_raised_before_more_is_taken(last: bool) -> None:
    taken = list[Any]()
    with pytest.raises(ZeroDivisionError):
        _failed_and_went_on(taken, last)
    assert taken == []


def _failed_and_went_on(taken: list[Any], last: bool) -> None:
    with beside(True) as behind:
        behind.then(lambda: taken.append(1 / 0))
        if not last:
            behind.take(taken.append, [])

"""Parts that are worked at while the next are made: answers, order and errors are a list's."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taqstore.run.dealing import one_behind

_Places = st.integers(0, 6) | st.none()


def _outcome(kind: str, length: int, unmade: int | None, undone: int | None) -> object:
    seen: list[int] = []

    def parts() -> Iterator[int]:
        for number in range(length):
            if number == unmade:
                raise ValueError(f"made {number}")
            yield number

    def work(number: int) -> int:
        seen.append(number)
        if number == undone:
            raise KeyError(f"done {number}")
        return number * number

    try:
        made = one_behind(work, parts()) if kind == "behind" else [work(n) for n in parts()]
    except (ValueError, KeyError) as error:
        return repr(error), seen
    return made, seen


@given(st.integers(0, 6), _Places, _Places)
def test_it_is_the_list_of_answers_with_the_same_first_error(
    length: int, unmade: int | None, undone: int | None
) -> None:
    asked = length, unmade, undone
    assert _outcome("behind", *asked) == _outcome("list", *asked)


def test_the_next_part_is_made_while_one_is_worked_at() -> None:
    made = threading.Event()

    def parts() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    assert one_behind(lambda number: (number, made.wait(10)), parts()) == [(0, True), (1, True)]


def test_parts_are_made_by_the_thread_that_asks() -> None:
    def parts() -> Iterator[int]:
        yield threading.get_ident()

    ((maker, worker),) = one_behind(lambda maker: (maker, threading.get_ident()), parts())
    assert maker == threading.get_ident() != worker


def test_ctrl_c_waits_for_no_more_than_what_was_begun() -> None:
    done: list[int] = []

    def parts() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one_behind(done.append, parts())
    assert done in ([], [0])

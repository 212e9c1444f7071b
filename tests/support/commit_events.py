"""What writers of groups do, in the order they do it and of any thread, and the rule it follows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import pytest

from taqstore.layout.item_records import Item
from taqstore.store.group_writer import GroupWriter

CLAIMED, PUTTING, PUT, FLAGGING, FLAGGED, LET_GO = (
    "claimed", "putting", "put", "flagging", "flagged", "let go")  # fmt: skip
WRITING = (PUTTING, PUT, FLAGGING, FLAGGED)


class Event(NamedTuple):
    """One thing that happened to an item of a group."""

    what: str
    group: str
    item: Item


class Events(list[Event]):
    """All that happened, in order.

    Parameters
    ----------
    on
        Told of each event before it goes on, with its number among those of its name: it may wait
        or raise.
    """

    def __init__(self, on: Callable[[Event, int], None] = lambda event, number: None) -> None:
        super().__init__()
        self._on, self._lock = on, Lock()
        self._numbers: dict[str, itertools.count[int]] = {}

    def happens(self, what: str, group: str, item: Item) -> None:
        """Keep an event and tell of it."""
        event = Event(what, group, item)
        with self._lock:
            number = next(self._numbers.setdefault(what, itertools.count()))
            self.append(event)
        self._on(event, number)

    def flagged(self) -> set[tuple[str, Item]]:
        """Items that were flagged, by path of their group."""
        return {(group, item) for what, group, item in self if what == FLAGGED}

    def check(self) -> None:
        """The commit rule: what is flagged was put before, all of it under its claim."""
        by_item: dict[tuple[str, Item], list[str]] = {}
        for what, group, item in self:
            by_item.setdefault((group, item), []).append(what)
        for of, seen in by_item.items():
            assert seen.count(CLAIMED) == seen.count(LET_GO), f"{of} is held still: {seen}"
            held, puts, flagged = False, 0, False
            for what in seen:
                held = what == CLAIMED or (held and what != LET_GO)
                assert held or what not in WRITING, f"{of} is written without its claim: {seen}"
                assert not (flagged and what in WRITING), f"{of} is written once flagged: {seen}"
                puts += (what == PUTTING) - (what == PUT)
                assert what != FLAGGING or puts == 0, f"{of} is flagged before its data: {seen}"
                flagged |= what == FLAGGED
            assert not flagged or PUT in seen, f"{of} is flagged without data: {seen}"


@contextmanager
def recorded(events: Events) -> Iterator[Events]:
    """Keep what all writers of groups do meanwhile."""
    put, commit_all, claim = GroupWriter.put, GroupWriter.commit_all, GroupWriter.claim

    def item_of(group: GroupWriter, name: str, start: Iterable[int]) -> Item:
        at = dict(zip(group.template.array(name).dims, start, strict=True))
        return tuple(int(at[dim]) for dim in group.template.item_dims)

    def putting(self: GroupWriter, name: str, start: Any, values: Any) -> int:
        of = self.template.path, item_of(self, name, start)
        events.happens(PUTTING, *of)
        size = put(self, name, start, values)
        events.happens(PUT, *of)
        return size

    def committing(items: Mapping[GroupWriter, Iterable[Item]]) -> None:
        every = {group: list(some) for group, some in items.items()}
        of = [(group.template.path, item) for group, some in every.items() for item in some]
        for path, item in of:
            events.happens(FLAGGING, path, item)
        commit_all(every)
        for path, item in of:
            events.happens(FLAGGED, path, item)

    @contextmanager
    def claiming(self: GroupWriter, item: Item) -> Iterator[bool]:
        with claim(self, item) as held:
            if held:
                events.happens(CLAIMED, self.template.path, item)
            try:
                yield held
            finally:
                if held:
                    events.happens(LET_GO, self.template.path, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GroupWriter, "put", putting)
        patch.setattr(GroupWriter, "commit_all", staticmethod(committing))
        patch.setattr(GroupWriter, "claim", claiming)
        yield events

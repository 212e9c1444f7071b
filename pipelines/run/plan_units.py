"""One plan on its way into the store: units in threads, flags after data, what is bad refused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from taqstore.errors import SourceError, problem
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.writer import StoreWriter

from ..sources.parts.plan import Inexact, Item, Plan, Problem, Put, Unit
from ..tasks.units import Call, run_attempts
from .groups import open_groups

_log = logging.getLogger(__name__)
# Of a cluster: each plans the sources anew, which takes its time in a large folder.
_TASKS = 64


def _run_parts(unit: Unit, pool: ThreadPoolExecutor, put: Put) -> list[Problem]:
    """Run a unit's parts side by side; problems of all of them, in order."""
    futures = [pool.submit(part, put) for part in unit.parts]
    return [found for future in futures for found in future.result()]


def _discard(group: str, name: str, start: Item, values: Any) -> None:
    """Read what a part would write, and keep nothing."""
    if not isinstance(values, np.ndarray):
        for _ in values:
            pass


def _result(done: Future[bool], submitted: Sequence[Future[bool]]) -> bool:
    """What a unit gave; of its error and those of units before it, the first is raised."""
    if done.exception() is None:
        return done.result()
    place = submitted.index(done)
    for later in submitted[place + 1 :]:
        later.cancel()
    return next(one.result() for one in submitted[: place + 1] if one.exception() is not None)


class PlanRun:
    """One plan on its way into the store.

    Parameters
    ----------
    outcome
        Counts, notes and problems are added here.
    mode, strict
        As of `ingest`.
    replaced
        Groups to replace.
    first
        Number of the plan's first unit in the whole run.
    """

    def __init__(
        self,
        writer: StoreWriter,
        plan: Plan,
        outcome: Outcome,
        mode: Mode,
        *,
        strict: bool,
        replaced: Collection[str],
        first: int = 0,
    ) -> None:
        self._mode, self._writer, self._first = mode, writer, first
        self._held: set[int] = set()
        self.plan, self.outcome, self.strict = plan, outcome, strict
        self.progress = mode.progress
        self.inexact: set[tuple[str, str]] = set()
        self.refused: dict[str, set[Item]] = {}
        self._lock = Lock()
        self._places = {id(unit): place for place, unit in enumerate(plan.units)}
        self._said: list[tuple[int, str, list[str]]] = []
        self.groups = open_groups(writer, plan.templates, mode, replaced=replaced)
        self.done = {path: group.written() for path, group in self.groups.items()}
        ours = mode.mine(range(first, first + len(plan.units)))
        self.units = {number: plan.units[number - first] for number in ours}
        for path in self.groups:  # the table lists them in this order, not as threads finish
            outcome.count(path)
        outcome.notes.extend(plan.notes)
        # Of the whole run, which a task has a part of.
        for found in plan.problems if mode.only is None else ():
            self._report(found, None)
        self._hand_over()

    def execute(self, threads: int, called: Call) -> None:
        """Run every unit that is not complete; the first error that is not a bad item stops all.

        Units finish in any order. What they say is in the plan's, and of several errors the first
        unit's is raised. `called` as of `run_attempts`.
        """
        pending = {id(unit) for unit in self.pending()}
        run_attempts(
            {number: unit for number, unit in self.units.items() if id(unit) in pending},
            partial(self._attempt, threads),
            called=called,
            mode=self._mode,
            outcome=self.outcome,
            left_note=lambda unit: f"{unit.label}: another process is writing it; left to that one",
            close=self._writer.close_flags,
            tasks=_TASKS,
        )
        self._hand_over()
        self.outcome.notes.extend(self.plan.late_notes())

    def _attempt(self, threads: int, numbers: Collection[int]) -> list[int]:
        """Run units in threads; numbers of those that other processes hold."""
        self._held.clear()
        with ThreadPoolExecutor(threads) as units, ThreadPoolExecutor(threads) as parts:
            futures = {
                units.submit(self.unit, unit, parts): unit
                for unit in (self.units[number] for number in numbers)
            }
            submitted = list(futures)
            try:
                for future in as_completed(submitted):
                    if _result(future, submitted) and id(futures[future]) not in self._held:
                        self.progress.advance(futures[future].label, futures[future].nbytes)
            except BaseException:
                units.shutdown(wait=False, cancel_futures=True)
                parts.shutdown(wait=False, cancel_futures=True)
                raise
        return [number for number in numbers if id(self.units[number]) in self._held]

    def pending(self) -> list[Unit]:
        """Units of ours that are not complete; the others are counted as skipped."""
        return [unit for unit in self.units.values() if not self._skip(unit)]

    def _skip(self, unit: Unit) -> bool:
        missing = any(not self.done[g][i] for g, items in unit.items.items() for i in items)
        if not missing:
            self._count_skipped(unit)
            self.progress.advance(unit.label, unit.nbytes)
        return not missing

    def _count_skipped(self, unit: Unit) -> None:
        with self._lock:
            for group, items in unit.items.items():
                self.outcome.count(group).skipped += len(items)

    def unit(self, unit: Unit, parts: ThreadPoolExecutor) -> bool:
        """Write one unit; False if it has to be planned again."""
        first, items = next(iter(unit.items.items()))
        with self.groups[first].claim(items[0]) as held:
            if all(self.groups[group].complete(items) for group, items in unit.items.items()):
                self._count_skipped(unit)  # another process finished it since we looked
            elif held:
                return self._try(unit, parts)
            else:
                self._held.add(id(unit))
        return True

    def _try(self, unit: Unit, parts: ThreadPoolExecutor) -> bool:
        try:
            self._write(unit, parts)
            _log.debug("read %s, %d bytes", unit.label, unit.nbytes)
        except Inexact as error:
            with self._lock:
                self.inexact.add((error.group, error.variable))
            return False
        except SourceError as error:
            self._refuse(unit, error)
        return True

    def _protect(self, unit: Unit, parts: ThreadPoolExecutor) -> None:
        """Keep a source that has decayed from overwriting what it once gave.

        Items that share shards (the steps of a site) are written again as a whole when one of them
        is missing. So such a unit is first read without writing: an item that is stored and bad by
        now would be lost.
        """
        stored = {(g, i) for g in unit.items for i in self._sharing(g, unit.items[g])}
        if not stored:
            return
        for found in [*self.plan.problems, *_run_parts(unit, parts, _discard)]:
            if (found.group, found.item) in stored:
                raise SourceError(
                    problem(
                        f"{unit.label} is stored in part and would lose what is bad now",
                        found=found.text,
                        remedy="restore that file, then run again with --resume",
                    )
                )

    def _sharing(self, group: str, items: tuple[Item, ...]) -> list[Item]:
        """Stored items that have shards in common with these."""
        chunk = self.groups[group].template.mask_chunk()
        numbers = {tuple(i // c for i, c in zip(item, chunk, strict=True)) for item in items}
        stored = [tuple(map(int, item)) for item in np.argwhere(self.done[group])]
        return [
            item
            for item in stored
            if tuple(i // c for i, c in zip(item, chunk, strict=True)) in numbers
        ]

    def _write(self, unit: Unit, parts: ThreadPoolExecutor) -> None:
        self._protect(unit, parts)
        written: dict[str, int] = {}

        def put(group: str, name: str, start: Item, values: Any) -> None:
            size = self.groups[group].put(name, start, values)
            with self._lock:
                written[group] = written.get(group, 0) + size

        found = _run_parts(unit, parts, put)
        if found and self.strict:
            raise SourceError(found[0].text)
        bad = {(p.group, p.item) for p in found}
        for group, items in unit.items.items():
            good = [item for item in items if (group, item) not in bad]
            self.groups[group].commit(good)
            with self._lock:
                self.outcome.wrote(group, items=len(good), size=written.get(group, 0))
        with self._lock:
            self.outcome.bytes_in += unit.nbytes
        for entry in found:
            self._report(entry, unit)

    def _refuse(self, unit: Unit, error: SourceError) -> None:
        if self.strict:
            raise error
        for group, items in unit.items.items():
            self.outcome.count(group).refused += len(items)
            self._note_refused(group, items)
        self._say(str(error), unit, self.outcome.problems)

    def _note_refused(self, group: str, items: Iterable[Item]) -> None:
        with self._lock:
            self.refused.setdefault(group, set()).update(items)

    def _report(self, found: Problem, unit: Unit | None) -> None:
        if self.strict:
            raise SourceError(found.text)
        if found.item is not None:
            self.outcome.count(found.group).refused += 1
            self._note_refused(found.group, [found.item])
        self._say(found.text, unit, self.outcome.problems)

    def _say(self, text: str, unit: Unit | None, to: list[str]) -> None:
        """Keep what a unit has to say until all are done."""
        with self._lock:
            self._said.append((-1 if unit is None else self._places[id(unit)], text, to))

    def _hand_over(self) -> None:
        """Hand over what was said, each text once, in the order of the units."""
        for _, text, to in sorted(self._said, key=lambda told: told[0]):
            if text not in to:
                to.append(text)
        self._said.clear()

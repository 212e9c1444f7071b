"""One plan on its way into the store: units in threads, flags after data, what is bad refused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock
from typing import Any

import numpy as np

from taqstore.errors import SourceError, problem
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.writer import StoreWriter

from ..sources.parts.plan import Inexact, Item, Plan, Problem, Put, Unit
from .groups import open_groups

_log = logging.getLogger(__name__)


def _run_parts(unit: Unit, pool: ThreadPoolExecutor, put: Put) -> list[Problem]:
    """Run a unit's parts side by side; problems of all of them, in order."""
    futures = [pool.submit(part, put) for part in unit.parts]
    return [found for future in futures for found in future.result()]


def _discard(group: str, name: str, start: Item, values: Any) -> None:
    """Read what a part would write, and keep nothing."""
    if not isinstance(values, np.ndarray):
        for _ in values:
            pass


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
    ) -> None:
        self.plan, self.outcome, self.strict = plan, outcome, strict
        self.progress = mode.progress
        self.inexact: set[tuple[str, str]] = set()
        self.refused: dict[str, set[Item]] = {}
        self._lock = Lock()
        self.groups = open_groups(writer, plan.templates, mode, replaced=replaced)
        self.done = {path: group.written() for path, group in self.groups.items()}
        for path in self.groups:  # the table lists them in this order, not as threads finish
            outcome.count(path)
        outcome.notes.extend(plan.notes)
        for found in plan.problems:
            self._report(found)

    def execute(self, threads: int) -> None:
        """Run every unit that is not complete; the first error that is not a bad item stops all."""
        pending = self.pending()
        with ThreadPoolExecutor(threads) as units, ThreadPoolExecutor(threads) as parts:
            futures = {units.submit(self.unit, unit, parts): unit for unit in pending}
            try:
                for future in as_completed(futures):
                    if future.result():
                        self.progress.advance(futures[future].label, futures[future].nbytes)
            except BaseException:
                units.shutdown(wait=False, cancel_futures=True)
                parts.shutdown(wait=False, cancel_futures=True)
                raise
        self.outcome.notes.extend(self.plan.late_notes())

    def pending(self) -> list[Unit]:
        """Units that are not complete; the others are counted as skipped."""
        return [unit for unit in self.plan.units if not self._skip(unit)]

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
            if not held:
                self._note(f"{unit.label}: another process is writing it; left to that one")
            elif all(self.groups[group].complete(items) for group, items in unit.items.items()):
                self._count_skipped(unit)  # another process finished it since we looked
            else:
                return self._try(unit, parts)
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
            self._report(entry)

    def _refuse(self, unit: Unit, error: SourceError) -> None:
        if self.strict:
            raise error
        for group, items in unit.items.items():
            self.outcome.count(group).refused += len(items)
            self._note_refused(group, items)
        self._say(str(error))

    def _note_refused(self, group: str, items: Iterable[Item]) -> None:
        with self._lock:
            self.refused.setdefault(group, set()).update(items)

    def _report(self, found: Problem) -> None:
        if self.strict:
            raise SourceError(found.text)
        if found.item is not None:
            self.outcome.count(found.group).refused += 1
            self._note_refused(found.group, [found.item])
        self._say(found.text)

    def _say(self, text: str) -> None:
        with self._lock:
            if text not in self.outcome.problems:
                self.outcome.problems.append(text)

    def _note(self, text: str) -> None:
        with self._lock:
            self.outcome.notes.append(text)

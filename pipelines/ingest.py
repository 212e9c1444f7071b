"""Ingest: run folders of the old scripts -> groups of a store. Wiring only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

from taqstore.errors import SourceError, StoreError, problem
from taqstore.provenance import describe_input, make_record
from taqstore.writer import StoreWriter, create_store

from . import sources
from .sources.plan import Inexact, Item, Options, Plan, Problem, Unit

Progress = Callable[[str, int], None]
_WORKERS = 4


@dataclass
class GroupCount:
    """What happened to the items of one group."""

    group: str
    written: int = 0
    skipped: int = 0
    refused: int = 0
    bytes_out: int = 0


@dataclass
class Summary:
    """What an ingest did. `problems` non-empty means exit code 1."""

    groups: dict[str, GroupCount] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_in: int = 0
    seconds: float = 0.0

    def count(self, group: str) -> GroupCount:
        """The counters of a group."""
        return self.groups.setdefault(group, GroupCount(group))


def ingest(
    paths: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    only: Iterable[str] = (),
    resume: bool = False,
    force: bool = False,
    strict: bool = False,
    workers: int | None = None,
    prompts: str | os.PathLike[str] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_progress: Progress | None = None,
) -> Summary:
    """Bring run folders or files into a store.

    Parameters
    ----------
    paths
        Sources, recognised by content.
    store
        Path or URL; made when it does not exist.
    only
        Kinds to take: latents, blocks, activations, samples, postgelu, schedule. Empty: all.
    resume
        Skip what is complete. Without it, finding complete items is an error.
    force
        Replace the groups that the sources fill.
    strict
        Stop at the first bad item instead of listing it.
    workers
        Threads that read and write; default up to 4.
    prompts
        Text or CSV file that stands in for the pickled prompts of a Phase 1 file.
    on_start, on_progress
        Called with the total of input bytes, and with (label, bytes) after each unit.

    Raises
    ------
    SourceError
        A source cannot be read at all, or with `strict` an item of it.
    StoreError
        The store is of another kind or format, busy, full or read-only.
    """
    started = monotonic()
    options = Options(prompts=None if prompts is None else Path(prompts))
    plans = [p for path in paths for p in sources.plan(Path(path), only=only, options=options)]
    summary = Summary()
    if on_start:
        on_start(sum(unit.nbytes for plan in plans for unit in plan.units))
    threads = workers or min(_WORKERS, os.cpu_count() or 1)
    replaced: set[str] = set()
    with create_store(store) as writer:
        for plan in plans:
            # A group is replaced once: a second source that fills it adds to the first.
            fresh = {t.path for t in plan.templates} - replaced if force else set()
            replaced |= fresh
            mode = _Mode(resume, strict, frozenset(fresh), threads, on_progress)
            _execute(writer, plan, summary, mode, options)
            writer.record(_record(plan, summary, options))
    summary.seconds = monotonic() - started
    return summary


@dataclass(frozen=True)
class _Mode:
    """How to treat what is there already and what is bad; threads, and whom to tell."""

    resume: bool
    strict: bool
    replaced: frozenset[str]
    threads: int
    on_progress: Progress | None


def _execute(
    writer: StoreWriter, plan: Plan, summary: Summary, mode: _Mode, options: Options
) -> None:
    """Run a plan; groups where a value proved inexact once more, with wider dtypes."""
    stored = _stored_wider(writer, plan, mode.replaced)
    if stored:
        options = replace(options, widen=options.widen | stored)
        plan = sources.replan(plan, options=options)
    run = _Run(writer, plan, summary, mode)
    run.execute(mode.threads, mode.on_progress)
    if not run.inexact:
        return
    options = replace(options, widen=options.widen | run.inexact)
    groups = frozenset(group for group, _ in run.inexact)
    again = _only_groups(sources.replan(plan, options=options), groups)
    _execute(writer, again, summary, replace(mode, replaced=groups), options)


def _stored_wider(
    writer: StoreWriter, plan: Plan, replaced: frozenset[str]
) -> frozenset[tuple[str, str]]:
    """Variables that an earlier run had to keep in the source's dtype."""
    found = set()
    for template in plan.templates:
        for array in template.arrays:
            if template.path in replaced or "original_dtype" not in array.attrs:
                continue
            stored: Any = writer.root.get(f"{template.path}/{array.name}")
            if stored is not None and stored.dtype.itemsize > np.dtype(array.dtype).itemsize:
                found.add((template.path, array.name))
    return frozenset(found)


def _only_groups(plan: Plan, groups: frozenset[str]) -> Plan:
    """The part of a plan that fills these groups; what was found wrong has been said already."""
    return replace(
        plan,
        templates=tuple(t for t in plan.templates if t.path in groups),
        units=tuple(unit for unit in plan.units if groups.issuperset(unit.items)),
        problems=(),
        notes=(),
    )


class _Run:
    """One plan on its way into the store."""

    def __init__(self, writer: StoreWriter, plan: Plan, summary: Summary, mode: _Mode) -> None:
        self.plan, self.summary, self.strict = plan, summary, mode.strict
        self.inexact: set[tuple[str, str]] = set()
        self._lock = Lock()
        self.groups = {
            t.path: writer.group(t, replace=t.path in mode.replaced) for t in plan.templates
        }
        self.done = {path: group.written() for path, group in self.groups.items()}
        if not mode.resume:
            self._refuse_overwriting(str(writer.location))
        summary.notes.extend(plan.notes)
        for found in plan.problems:
            self._report(found)

    def _refuse_overwriting(self, where: str) -> None:
        for path, done in self.done.items():
            if done.any():
                raise StoreError(
                    problem(
                        f"{path} already holds {int(done.sum())} of the {done.size} items",
                        where=where,
                        remedy="--resume skips them, --force replaces the group",
                    )
                )

    def execute(self, workers: int, on_progress: Progress | None) -> None:
        pending = [unit for unit in self.plan.units if not self._skip(unit, on_progress)]
        with ThreadPoolExecutor(workers) as units, ThreadPoolExecutor(workers) as parts:
            futures = {units.submit(self._unit, unit, parts): unit for unit in pending}
            try:
                for future in as_completed(futures):
                    if future.result() and on_progress:
                        on_progress(futures[future].label, futures[future].nbytes)
            except BaseException:
                units.shutdown(wait=False, cancel_futures=True)
                parts.shutdown(wait=False, cancel_futures=True)
                raise

    def _skip(self, unit: Unit, on_progress: Progress | None) -> bool:
        missing = any(not self.done[g][i] for g, items in unit.items.items() for i in items)
        if not missing:
            self._count_skipped(unit)
            if on_progress:
                on_progress(unit.label, unit.nbytes)
        return not missing

    def _count_skipped(self, unit: Unit) -> None:
        with self._lock:
            for group, items in unit.items.items():
                self.summary.count(group).skipped += len(items)

    def _unit(self, unit: Unit, parts: ThreadPoolExecutor) -> bool:
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
        except Inexact as error:
            with self._lock:
                self.inexact.add((error.group, error.variable))
            return False
        except SourceError as error:
            self._refuse(unit, error)
        return True

    def _write(self, unit: Unit, parts: ThreadPoolExecutor) -> None:
        written: dict[str, int] = {}

        def put(group: str, name: str, start: Item, values: Any) -> None:
            size = self.groups[group].put(name, start, values)
            with self._lock:
                written[group] = written.get(group, 0) + size

        found = [
            p
            for future in [parts.submit(part, put) for part in unit.parts]
            for p in future.result()
        ]
        if found and self.strict:
            raise SourceError(found[0].text)
        bad = {(p.group, p.item) for p in found}
        for group, items in unit.items.items():
            good = [item for item in items if (group, item) not in bad]
            self.groups[group].commit(good)
            with self._lock:
                count = self.summary.count(group)
                count.written += len(good)
                count.bytes_out += written.get(group, 0)
        with self._lock:
            self.summary.bytes_in += unit.nbytes
        for entry in found:
            self._report(entry)

    def _refuse(self, unit: Unit, error: SourceError) -> None:
        if self.strict:
            raise error
        for group, items in unit.items.items():
            self.summary.count(group).refused += len(items)
        self._say(str(error))

    def _report(self, found: Problem) -> None:
        if self.strict:
            raise SourceError(found.text)
        if found.item is not None:
            self.summary.count(found.group).refused += 1
        self._say(found.text)

    def _say(self, text: str) -> None:
        with self._lock:
            if text not in self.summary.problems:
                self.summary.problems.append(text)

    def _note(self, text: str) -> None:
        with self._lock:
            self.summary.notes.append(text)


def _record(plan: Plan, summary: Summary, options: Options) -> dict[str, Any]:
    parameters = {"source": plan.source, **plan.parameters}
    if options.prompts is not None:
        parameters["prompts"] = options.prompts.name
    counts = [summary.count(t.path) for t in plan.templates]
    return make_record(
        "ingest",
        parameters=parameters,
        inputs=[describe_input(path) for path in plan.inputs],
        groups=[t.path for t in plan.templates],
        counts={
            "written": sum(c.written for c in counts),
            "refused": sum(c.refused for c in counts),
        },
    )

"""Ingest: run folders of the old scripts -> groups of a store. Wiring only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from taqstore.store.provenance import describe_input, make_record
from taqstore.store.writer import StoreWriter, create_store

from . import sources
from .run.plan_run import Mode, PlanRun, Progress
from .run.summary import Summary
from .sources.plan import Options, Plan

_WORKERS = 4


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
            mode = Mode(resume, strict, frozenset(fresh), threads, on_progress)
            _execute(writer, plan, summary, mode, options)
            writer.record(_record(plan, summary, options))
    summary.seconds = monotonic() - started
    return summary


def _execute(
    writer: StoreWriter, plan: Plan, summary: Summary, mode: Mode, options: Options
) -> None:
    """Run a plan; groups where a value proved inexact once more, with wider dtypes."""
    stored = _stored_wider(writer, plan, mode.replaced)
    if stored:
        options = replace(options, widen=options.widen | stored)
        plan = sources.replan(plan, options=options)
    run = PlanRun(writer, plan, summary, mode)
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
    """Variables that an earlier run had to keep in the source's dtype, or apart."""
    found = set()
    for template in plan.templates:
        if template.path in replaced:
            continue
        names = {array.name for array in template.arrays}
        if "output" not in names and writer.root.get(f"{template.path}/output") is not None:
            found.add((template.path, "output"))
        for array in template.arrays:
            stored: Any = writer.root.get(f"{template.path}/{array.name}")
            narrowed = "original_dtype" in array.attrs and stored is not None
            if narrowed and stored.dtype.itemsize > np.dtype(array.dtype).itemsize:
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

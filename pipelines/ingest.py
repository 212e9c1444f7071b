"""Ingest: run folders of the old scripts -> groups of a store. Wiring only."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, SourceError, TaqError, problem
from taqstore.kinds.weight_sets import ADAROUND, check_set, folder_of
from taqstore.names import SAMPLES, WEIGHTS
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan as RunPlan
from taqstore.run.progress import SILENT
from taqstore.store.writer import StoreWriter

from . import sources
from .run.dry import BYTES, laid_out, new_plan, open_writer, timed
from .run.groups import open_groups
from .run.plan_sample import plan_units
from .run.plan_units import PlanRun
from .run.record import record_run
from .sources.parts.plan import Options, Plan
from .tasks.cluster import connected, scheduler_of
from .tasks.units import Call

_WORKERS = 4


@takes_storage_options
def ingest(
    paths: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    only: Iterable[str] = (),
    strict: bool = False,
    workers: int | None = None,
    prompts: str | os.PathLike[str] | None = None,
    set: str | None = None,
    mode: Mode | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Bring run folders or files into a store.

    Parameters
    ----------
    paths
        Sources, recognised by content.
    store
        Path or URL; made when it does not exist.
    only
        Kinds to take, words of `sources.table.SOURCES`. Empty: all.
    strict
        Stop at the first bad item instead of listing it.
    workers
        Threads that read and write; default up to 4.
    prompts
        Text or CSV file that stands in for the pickled prompts of a Phase 1 file.
    set
        Name of the weight set that quantized weights become; None: `adaround`.
    mode
        What to do with what is there already, and whom to tell of input bytes, unit by unit.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    SourceError
        A source cannot be read at all, or with `strict` an item of it; or prompts are given and
        there is no Phase 1 file, a set and no quantized weights.
    MisuseError
        Prompts are given, and `only` names other sources; or no set can be called so.
    StoreError
        The store is of another kind or format, busy, full or read-only.
    """
    started = monotonic()
    mode, outcome = mode or Mode(), Outcome()
    name = ADAROUND if set is None else check_set(set)
    options = Options(
        prompts=None if prompts is None else Path(prompts),
        set=name,
        folder=_folder_there(store, name),
    )
    only = tuple(only)
    if prompts is not None and only and SAMPLES not in only:
        raise MisuseError(f"--prompts is for a Phase 1 file, --only for {', '.join(only)}")
    plans = [p for path in paths for p in sources.plan(Path(path), only=only, options=options)]
    if prompts is not None and not any(options.prompts in plan.inputs for plan in plans):
        what = "--prompts is for a Phase 1 file, and none is among the sources"
        raise SourceError(problem(what, remedy="leave --prompts out, or name DiT_cali_data.npz"))
    if set is not None and all(plan.source != WEIGHTS for plan in plans):
        what = "--set names quantized weights, and none are among the sources"
        raise SourceError(problem(what, remedy="leave --set out"))
    every = [unit for plan in plans for unit in plan.units]
    mode.progress.start(sum(every[number].nbytes for number in mode.mine(range(len(every)))))
    threads = workers or min(_WORKERS, os.cpu_count() or 1)
    replaced = frozenset[str]()
    with connected(scheduler_of(mode)), open_writer(store, mode) as writer:
        if mode.dry_run:
            outcome.plan = new_plan(writer, BYTES)
        again = {"only": only, "strict": strict, "workers": workers, "prompts": prompts, "set": set}
        call = Call(ingest, ([os.fspath(path) for path in paths], writer.location), again)
        job = _Job(writer, outcome, mode, strict, threads, call)
        first = 0
        for plan in plans:
            # A group is replaced once: a second source that fills it adds to the first.
            paths_of_plan = frozenset(template.path for template in plan.templates)
            fresh = paths_of_plan - replaced if mode.force else frozenset[str]()
            replaced |= fresh
            if mode.groups_only:
                job.lay_out(plan, options, fresh)
            elif outcome.plan is not None:
                job.plan(plan, options, fresh, outcome.plan, first)
                timed(outcome.plan, sum(job.seconds), "units read")
            else:
                job.execute(plan, options, fresh, first)
                job.record(plan, options)
            first += len(plan.units)
    outcome.seconds = monotonic() - started
    return outcome


def _folder_there(store: str | os.PathLike[str], name: str) -> str | None:
    """Where a weight set lies in a store; None where there is no store that can be read."""
    from taqstore.store.reader import open_store  # brings xarray, which sources do without

    try:
        return folder_of(open_store(store).paths, name)
    except TaqError:
        return None  # told where it is opened for writing


@dataclass(frozen=True)
class _Job:
    """One run of `ingest`."""

    writer: StoreWriter
    outcome: Outcome
    mode: Mode
    strict: bool
    threads: int
    call: Call
    seconds: list[float] = field(default_factory=list)

    def lay_out(self, plan: Plan, options: Options, replaced: Collection[str]) -> None:
        """Make the groups of a plan, and count what is to come."""
        stored = _stored_wider(self.writer, plan, replaced)
        if stored:
            plan = sources.replan(plan, options=replace(options, widen=options.widen | stored))
        groups = open_groups(self.writer, plan.templates, self.mode, replaced=replaced)
        amount = sum(
            unit.nbytes
            for unit in plan.units
            if not all(groups[path].complete(items) for path, items in unit.items.items())
        )
        laid = laid_out(self.writer, groups, unit=BYTES, amount=amount)
        before = self.outcome.plan
        if before is not None:
            laid.amount += before.amount
            laid.at_most |= before.at_most
            laid.groups = {**before.groups, **laid.groups}
        self.outcome.plan = laid

    def execute(self, plan: Plan, options: Options, replaced: Collection[str], first: int) -> None:
        """Run a plan; groups where a value proved inexact once more, with wider dtypes."""
        stored = _stored_wider(self.writer, plan, replaced)
        if stored:
            options = replace(options, widen=options.widen | stored)
            plan = sources.replan(plan, options=options)
        run = PlanRun(
            self.writer,
            plan,
            self.outcome,
            self.mode,
            strict=self.strict,
            replaced=replaced,
            first=first,
        )
        run.execute(self.threads, self.call)
        if not run.inexact:
            return
        if self.mode.shared:
            raise _not_alone(run.inexact)
        options = replace(options, widen=options.widen | run.inexact)
        groups = frozenset(group for group, _ in run.inexact)
        again = _only_groups(sources.replan(plan, options=options), groups)
        self.execute(again, options, groups, first)

    def plan(
        self,
        plan: Plan,
        options: Options,
        replaced: Collection[str],
        made: RunPlan,
        first: int,
    ) -> None:
        """Count what a plan would write; anew where a value proved inexact."""
        stored = _stored_wider(self.writer, plan, replaced)
        if stored:
            options = replace(options, widen=options.widen | stored)
            plan = sources.replan(plan, options=options)
        said, quiet = Outcome(), replace(self.mode, progress=SILENT)
        run = PlanRun(
            self.writer, plan, said, quiet, strict=self.strict, replaced=replaced, first=first
        )
        counted = copy.deepcopy(made)
        seconds, note = plan_units(run, counted, self.threads)
        if run.inexact:
            options = replace(options, widen=options.widen | run.inexact)
            self.plan(sources.replan(plan, options=options), options, replaced, made, first)
            return
        vars(made).update(vars(counted))
        self.seconds.append(seconds)
        self.outcome.notes += [*said.notes, *([note] if note else [])]
        self.outcome.problems += said.problems

    def record(self, plan: Plan, options: Options) -> None:
        """Append the provenance record of a plan."""
        parameters = {"source": plan.source, **plan.parameters}
        if options.prompts is not None and options.prompts in plan.inputs:
            parameters["prompts"] = options.prompts.name
        record_run(
            self.writer,
            "ingest",
            self.outcome,
            parameters=parameters,
            inputs=plan.inputs,
            groups=[template.path for template in plan.templates],
            counted=("written", "refused"),
            mode=self.mode,
        )


def _not_alone(inexact: Collection[tuple[str, str]]) -> SourceError:
    """A group that other processes fill is not made anew with wider values."""
    names = ", ".join(f"{variable} of {group}" for group, variable in sorted(inexact))
    what = f"values of {names} would be rounded, and the groups are made anew for wider ones"
    remedy = "ingest these sources in one process: without --shard, or --scheduler"
    return SourceError(problem(what, remedy=remedy))


def _stored_wider(
    writer: StoreWriter, plan: Plan, replaced: Collection[str]
) -> frozenset[tuple[str, str]]:
    """Variables that an earlier run had to keep in the source's dtype, or apart."""
    found = set()
    for template in plan.templates:
        if template.path in replaced:
            continue
        names = {array.name for array in template.arrays}
        node: Any = writer.node(template.path)
        if node is None:
            continue
        if "output" not in names and "output" in node:
            found.add((template.path, "output"))
        for array in template.arrays:
            stored = node.get(array.name)
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

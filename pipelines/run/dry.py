"""What a run would write and how long it would take, counted on groups that are planned only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from taqstore.errors import StoreError, TaqError
from taqstore.layout.item_bytes import item_bytes, numbers_of
from taqstore.layout.item_records import ItemLayout
from taqstore.place.location import Address, Location
from taqstore.run.mode import Mode
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.planned import PlannedGroup, plan_store
from taqstore.store.writer import StoreWriter, create_store

from ..tasks.task_writer import TaskWriter
from .space import free_bytes

FLUSH_SECONDS = 0.005
"""What a file takes to be flushed on a disk of its time; a dry run tries none."""
FORWARDS, ITERATIONS, LINEARS, BYTES = "forwards", "iterations", "linears", "bytes"
SHARD = "shard"
"""Parameter of a provenance record: which part of the run it is of."""
MILLISECONDS = "milliseconds"
"""Count of a provenance record: wall time of the work, beside how much of it there was."""


def open_writer(address: Address, mode: Mode) -> StoreWriter:
    """The store, open for writing; with `Mode.dry_run`, for planning; as `Mode.only` says."""
    if mode.only is not None:
        return TaskWriter(Location.parse(address))
    return plan_store(address) if mode.dry_run else create_store(address)


def new_plan(writer: StoreWriter, unit: str, amount: int = 0) -> Plan:
    """A plan of no group yet; `free` is what the store's disk has."""
    return Plan(free=free_bytes(writer.location), unit=unit, amount=amount)


def add_group(plan: Plan, group: GroupWriter, *, wanted: np.ndarray | None = None) -> None:
    """Count the items of a group.

    Parameters
    ----------
    wanted
        Mask over the template's items of those that the run is about; None: all.
    """
    assert isinstance(group, PlannedGroup)
    template, done = group.template, group.written()
    about = np.ones(done.shape, bool) if wanted is None else np.broadcast_to(wanted, done.shape)
    counts, missing = plan.group(template.path), about & ~done
    counts.to_write += int(missing.sum())
    counts.done += int((about & done).sum())
    numbers, shares = numbers_of(template, missing), group.shares()
    if not numbers:
        return
    if any(array.compress and array.name not in shares for array in template.arrays):
        plan.at_most.add(template.path)
    counts.files += group.documents
    counts.files += len(numbers) * (ItemLayout.of_template(template).files + 1)
    alike = all(template.item_extent(dim) == 1 for dim in template.item_dims)
    some = [next(iter(numbers))] if alike else numbers
    present = group.present()
    size = sum(
        present.get(name, 1.0) * size
        for number in some
        for name, size in item_bytes(template, number, shares).items()
    )
    counts.bytes += round(size * (len(numbers) if alike else 1))


def laid_out(
    writer: StoreWriter,
    groups: Mapping[str, GroupWriter],
    *,
    unit: str,
    amount: int,
    seen: Mapping[str, np.ndarray] | None = None,
) -> Plan:
    """Items and bytes that are to come in these groups; how well they compress is not known.

    Parameters
    ----------
    unit, amount
        As of `Plan`: what is left to do.
    seen
        Masks of the items that there will be, of groups that leave some out.
    """
    plan = Plan(free=free_bytes(writer.location), unit=unit, amount=amount, made=True)
    for path, group in groups.items():
        template, done = group.template, group.written()
        missing = ~done & (seen or {}).get(path, np.True_)
        counts, numbers = plan.group(path), numbers_of(template, missing)
        counts.to_write, counts.done = int(missing.sum()), int(done.sum())
        counts.bytes = sum(sum(item_bytes(template, n, {}).values()) for n in numbers)
        if numbers and any(array.compress for array in template.arrays):
            plan.at_most.add(path)
    return plan


def unknown_shares(groups: Iterable[GroupWriter]) -> bool:
    """Whether nothing tells how well arrays of these groups compress."""
    for group in groups:
        assert isinstance(group, PlannedGroup)
        known = group.shares()
        if any(array.compress and array.name not in known for array in group.template.arrays):
            return True
    return False


@dataclass(frozen=True)
class Pace:
    """Seconds that a unit of work takes, and how that is known."""

    seconds: float
    known: str


def recorded_pace(
    writer: StoreWriter,
    command: str,
    unit: str,
    parameters: Mapping[str, Any],
    *,
    beside: Collection[str],
) -> Pace | None:
    """The pace of the store's latest run of this kind; None where no record tells it.

    Parameters
    ----------
    parameters
        As they would be recorded.
    beside
        Those that the pace does not depend on.
    """
    from taqstore.store.reader import open_store  # brings xarray, which ingest does without

    try:
        records = open_store(writer.location).provenance
    except (StoreError, TaqError):
        return None
    wanted = _alike(parameters, beside)
    for record in reversed(records):
        amount, spent = (record["counts"].get(name, 0) for name in (unit, MILLISECONDS))
        same = record["command"] == command and _alike(record["parameters"], beside) == wanted
        if same and _is_count(amount) and _is_count(spent):
            day = str(record["time"])[:10]
            return Pace(spent / 1000 / amount, f"the rate of this store's {command} of {day}")
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _alike(parameters: Mapping[str, Any], beside: Collection[str]) -> dict[str, Any]:
    left = {*beside, SHARD}
    return {name: value for name, value in parameters.items() if name not in left}


def timed(plan: Plan, seconds: float, what: str) -> None:
    """Tell how long a plan takes by what was timed, and what its files take to reach the disk."""
    plan.seconds = seconds + plan.files * FLUSH_SECONDS
    plan.known = f"{what} now, {FLUSH_SECONDS * 1000:.0f} ms a file"


def paced(plan: Plan, pace: Pace) -> None:
    """Tell how long a plan takes by a pace that is known."""
    plan.seconds, plan.known = plan.amount * pace.seconds, pace.known


def refuse(plan: Plan, check: Callable[[], None]) -> None:
    """Keep what the run would be refused with now that it has counted."""
    try:
        check()
    except TaqError as error:
        plan.refused = error


class Clock:
    """Wall time of pieces of work."""

    def __init__(self) -> None:
        self._begun = perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._begun = self._begun, perf_counter()
        return self._begun - before


def work_done(unit: str, amount: int, seconds: float) -> dict[str, int]:
    """Counts of a provenance record that tell the pace of a run; none of one that did nothing."""
    return {unit: amount, MILLISECONDS: max(1, round(seconds * 1000))} if amount else {}

"""`ingest --dry-run`: what a plan would write, and in what time, from units that are read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from taqstore.run.plan import Plan

from ..sources.parts.plan import Unit
from .dry import Clock, add_group
from .plan_units import PlanRun

# Units are read, and not written, for so long: all of a small source.
_SECONDS = 2.0


def plan_units(run: PlanRun, plan: Plan, threads: int) -> tuple[float, str]:
    """Add the items and bytes of a source that are not complete to a plan.

    Returns the seconds that reading takes, and a line on what was not read, if anything was not.
    """
    pending = run.pending()
    read, seconds = _read(run, pending, threads)
    total, done = (sum(unit.nbytes for unit in some) for some in (pending, read))
    plan.amount += total
    for path, group in run.groups.items():
        wanted = np.zeros(run.done[path].shape, bool)
        for unit in run.units.values():
            for item in unit.items.get(path, ()):
                wanted[item] = True
        for item in run.refused.get(path, ()):
            wanted[item] = False
        add_group(plan, group, wanted=wanted)
    left = len(pending) - len(read)
    what = f"{run.plan.source}: {len(read)} of {len(pending)} units were read; what is bad in the"
    note = f"{what} others would be found as they are" if left else ""
    return seconds * (total / done if done else 1.0), note


def _read(run: PlanRun, pending: Sequence[Unit], threads: int) -> tuple[list[Unit], float]:
    """Units that were read in the time there is, and the seconds it took."""
    clock, spent, read = Clock(), 0.0, list[Unit]()
    with ThreadPoolExecutor(threads) as units, ThreadPoolExecutor(threads) as parts:
        for start in range(0, len(pending), threads):
            some = pending[start : start + threads]
            for _ in units.map(lambda unit: run.unit(unit, parts), some):
                pass
            read += some
            spent += clock.lap()
            if spent > _SECONDS or run.inexact:
                break
    return read, spent

"""Layouts found on disk, turned into plans: what to create, what to write, what is wrong.

A source is a module with a function ``plan(path, options) -> Plan`` and a row in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from taqstore.errors import SourceError
from taqstore.files.refusal import problem

from . import activations as timestep_stats
from . import blocks as adaround_cache
from . import latents as calibration_samples
from . import postgelu
from . import samples as phase
from . import schedule as schedules
from .detect import Source, detect
from .plan import Inexact, Item, Options, Part, Plan, Problem, Put, Unit

__all__ = [
    "SOURCES", "Inexact", "Item", "Options", "Part", "Plan", "Problem", "Put", "Source", "Unit",
    "detect", "plan", "replan",
]  # fmt: skip

SOURCES: dict[str, Callable[[Path, Options], Plan]] = {
    "latents": calibration_samples.plan,
    "blocks": adaround_cache.plan,
    "activations": timestep_stats.plan,
    "samples": phase.plan,
    "postgelu": postgelu.plan,
    "schedule": schedules.plan,
}


DEFAULTS = Options()


def plan(path: Path, *, only: Iterable[str] = (), options: Options = DEFAULTS) -> list[Plan]:
    """Plans of every source at `path`.

    Parameters
    ----------
    path
        A folder or file, as `detect` takes it.
    only
        Kinds to keep; all if empty.
    options
        Prompts of a Phase 1 file, variables not to narrow.

    Raises
    ------
    SourceError
        Nothing known at `path`, nothing left by `only`, or its only source is unusable. Of several
        sources an unusable one becomes a plan that holds nothing but its problem.
    """
    kinds = set(only)
    found = detect(path)
    kept = [source for source in found if not kinds or source.kind in kinds]
    if not kept:
        raise SourceError(
            problem(
                f"holds no {' or '.join(sorted(kinds))}",
                where=str(path),
                found=", ".join(source.kind for source in found),
                remedy="leave out --only, or give another source",
            )
        )
    if len(kept) == 1:
        return [_plan(kept[0], options)]
    return [_plan_or_problem(source, options) for source in kept]


def replan(plan: Plan, *, options: Options) -> Plan:
    """Plan the same source with other options, after an `Inexact`."""
    return _plan(Source(plan.source, plan.path), options)


def _plan(source: Source, options: Options) -> Plan:
    return replace(SOURCES[source.kind](source.path, options), path=source.path)


def _plan_or_problem(source: Source, options: Options) -> Plan:
    try:
        return _plan(source, options)
    except SourceError as error:
        found = (Problem(str(error)),)
        return Plan(source.kind, problems=found, inputs=(source.path,), path=source.path)

"""Plans of the sources at a path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from taqstore.errors import SourceError
from taqstore.files.refusal import problem

from .detect import Source, detect
from .left import left
from .parts.plan import Options, Plan, Problem
from .table import SOURCES

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
        plans = [_plan(kept[0], options)]
    else:
        plans = [_plan_or_problem(source, options) for source in kept]
    last = plans[-1]
    return [*plans[:-1], replace(last, notes=(*last.notes, *left(path, found)))]


def replan(plan: Plan, *, options: Options) -> Plan:
    """Plan the same source with other options, after an `Inexact`."""
    return _plan(Source(plan.source, plan.path), options)


def _plan(source: Source, options: Options) -> Plan:
    return replace(SOURCES[source.kind].plan(source.path, options), path=source.path)


def _plan_or_problem(source: Source, options: Options) -> Plan:
    try:
        return _plan(source, options)
    except SourceError as error:
        found = (Problem(str(error)),)
        return Plan(source.kind, problems=found, inputs=(source.path,), path=source.path)

"""Options of commands that several processes run on one store, and the mode that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from taqstore.cli import CLUSTER
from taqstore.cli.completed import Named
from taqstore.run.mode import Mode
from taqstore.run.progress import Progress
from taqstore.run.share import Shard

GROUPS_ONLY = "taqstore.groups_only"
"""Of a context: `taqstore plan` has called the command, which makes groups and fills none."""
_WAIT = 3600


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> Shard | None:
    return None if value is None else Shard.parse(value)


def _scheduler(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name, where it is one that takes tasks; checked without dask."""
    if value is None:
        return None
    return value if import_module(CLUSTER).Scheduler.parse(value) else None


_OPTIONS = (
    click.option(
        "--shard",
        metavar="K/N",
        callback=_shard,
        help="Do only every Nth unit from the Kth, which counts from 0; implies --resume.",
    ),
    click.option(
        "--wait",
        type=click.FloatRange(0),
        metavar="SECONDS",
        default=_WAIT,
        show_default=True,
        help="At the end, wait so long for each unit that other processes are at, and do what they "
        "let go of; 0: leave them.",
    ),
    click.option(
        "--scheduler",
        type=Named(lambda asked: ("processes", "distributed")),
        callback=_scheduler,
        metavar="NAME",
        help="Do units as tasks of dask: processes or distributed on this machine, with a number "
        "of workers like distributed:2, or the address of a scheduler [default: none, here].",
    ),
)


def sharing_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--shard`, `--wait` and `--scheduler`, which the command hands to `mode_of`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def mode_of(options: dict[str, Any], progress: Progress) -> Mode:
    """The mode that a command asks for; its options are taken out of `options`.

    Raises
    ------
    MisuseError
        Options that exclude each other.
    """
    resume, force, dry_run, shard, wait, scheduler = (
        options.pop(name) for name in ("resume", "force", "dry_run", "shard", "wait", "scheduler")
    )
    if click.get_current_context().meta.get(GROUPS_ONLY):
        for name, given in (("dry-run", dry_run), ("shard", shard), ("scheduler", scheduler)):
            if given:
                raise click.UsageError(f"plan makes groups for all of a run: leave --{name} out")
        return Mode(not force, force, progress, groups_only=True)
    for name, given in (("force", force), ("scheduler", scheduler)):
        if shard and given:
            raise click.UsageError(f"--shard and --{name} exclude each other")
    return Mode(resume, force, progress, dry_run, shard, wait, scheduler)

"""`--dry-run`: the option, and what a run would do as a table or a JSON document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from taqstore.cli.common import say
from taqstore.cli.outcome import print_outcome, say_notes
from taqstore.cli.output import print_json, print_rows
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan

HELP = "Say what would be written and how long it would take; write nothing."
dry_run_option: Callable[[Any], Any] = click.option("--dry-run", is_flag=True, help=HELP)


def print_plan(outcome: Outcome, *, as_json: bool, **also: Any) -> None:
    """What a run would do; notes on stderr. What it would be refused with is raised at the end.

    Parameters
    ----------
    also
        Further entries of the JSON document.
    """
    plan = outcome.plan
    assert plan is not None, "a run that was not dry"
    if as_json:
        print_json({**document(plan), **also, "notes": outcome.notes})
    else:
        _print(plan)
    say_notes(outcome)
    if plan.refused is not None:
        raise plan.refused
    if plan.free is not None and plan.bytes > plan.free:
        say("note: more than is free")
    if plan.made:
        say("the groups are there; the same command without plan, and with --resume, fills them")
        return
    if any(group.to_write for group in plan.groups.values()) or plan.amount:
        say("nothing was written; without --dry-run it is")
    else:
        say("nothing was written; the store has all of it")


def print_run(outcome: Outcome, *, as_json: bool) -> None:
    """What a command that runs a model did, or would do."""
    if outcome.plan is None:
        print_outcome(outcome, as_json=as_json)
    else:
        print_plan(outcome, as_json=as_json)


def document(plan: Plan) -> dict[str, Any]:
    """A plan for JSON."""
    return {
        "dry_run": not plan.made,
        "groups": {
            path: {**vars(group), "at_most": path in plan.at_most}
            for path, group in plan.groups.items()
        },
        "bytes": plan.bytes,
        "files": plan.files,
        "free": plan.free,
        "unit": plan.unit,
        plan.unit if plan.unit != "bytes" else "bytes_in": plan.amount,
        "seconds": plan.seconds if plan.amount else 0.0,
        "known": plan.known,
    }


def _print(plan: Plan) -> None:
    from taqstore.place.sizes import format_bytes

    rows = [
        (path, group.of, str(group.to_write), str(group.done), format_bytes(group.bytes))
        for path, group in plan.groups.items()
    ]
    header = ("group", "of", "to_write", "done", "bytes")
    shown = [i for i, name in enumerate(header) if name != "of" or any(row[i] for row in rows)]
    print_rows([header[i] for i in shown], [[row[i] for i in shown] for row in rows])
    free = "" if plan.free is None else f", {format_bytes(plan.free)} free"
    bound = "at most " if plan.at_most else ""
    click.echo(f"writes {bound}{format_bytes(plan.bytes)} ({plan.bytes} bytes){free}")
    amount = format_bytes(plan.amount) if plan.unit == "bytes" else str(plan.amount)
    click.echo(f"{'reads' if plan.unit == 'bytes' else plan.unit} {amount}{_time(plan)}")


def _time(plan: Plan) -> str:
    if plan.seconds is None:
        return ""
    return f", about {format_seconds(plan.seconds)} ({plan.known})" if plan.amount else ""


def format_seconds(seconds: float) -> str:
    """A time as one reads it: 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"

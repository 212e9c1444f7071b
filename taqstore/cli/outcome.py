"""What a run did, as a table of groups or a JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taqstore.cli.common import say
from taqstore.cli.output import print_json, print_rows
from taqstore.run.outcome import Counts, Outcome

_COUNTS = ("written", "skipped", "bytes_out")
_COLUMNS = {"written": "written", "skipped": "skipped", "stored": "bytes_out"}


def print_groups(outcome: Outcome, columns: Mapping[str, str]) -> None:
    """A row of counts for each group on stdout; `columns` are fields of `Counts` by title."""
    from taqstore.place.sizes import format_bytes

    def cell(counts: Counts, field: str) -> str:
        value: int = getattr(counts, field)
        return format_bytes(value) if field == "bytes_out" else str(value)

    rows = [
        (path, *(cell(counts, field) for field in columns.values()))
        for path, counts in outcome.groups.items()
    ]
    print_rows(("group", *columns), rows)


def groups_document(outcome: Outcome) -> dict[str, dict[str, int]]:
    """Counts by group, for JSON."""
    return {path: {c: getattr(n, c) for c in _COUNTS} for path, n in outcome.groups.items()}


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """What a command that runs a model did; notes on stderr."""
    if as_json:
        document: dict[str, Any] = {"groups": groups_document(outcome), "notes": outcome.notes}
        print_json(document)
    else:
        print_groups(outcome, _COLUMNS)
    say_notes(outcome)


def say_notes(outcome: Outcome) -> None:
    """Notes, a line each."""
    for note in outcome.notes:
        say(f"note: {note}")

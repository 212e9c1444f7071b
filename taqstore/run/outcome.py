"""What a run did, group by group."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from taqstore.run.plan import Plan


@dataclass
class Counts:
    """What happened to the items of one group."""

    written: int = 0
    skipped: int = 0
    refused: int = 0
    bytes_out: int = 0


@dataclass
class Outcome:
    """What a run did.

    Parameters
    ----------
    groups
        Counts by path of the group.
    notes
        What the user should know, a line each.
    problems
        What was refused, a line each; where there are any, the exit code is 1.
    files
        Files that were written beside the store.
    bytes_in, seconds
        Bytes of the sources, and wall time, where the run has them.
    plan
        What would be done, of a run with `Mode.dry_run`.
    left
        Numbers of units that other processes hold, and that were left to them.
    """

    groups: dict[str, Counts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    bytes_in: int = 0
    seconds: float = 0.0
    plan: Plan | None = None
    left: list[int] = field(default_factory=list)

    def count(self, group: str) -> Counts:
        """The counts of a group."""
        return self.groups.setdefault(group, Counts())

    def wrote(self, group: str, *, items: int = 1, size: int = 0) -> None:
        """Add items and bytes written to a group."""
        self.count(group).written += items
        self.count(group).bytes_out += size

    def add(self, other: Outcome) -> None:
        """Add what a part of the run did; what it skipped was counted by the whole."""
        for path, counts in other.groups.items():
            mine = self.count(path)
            mine.written += counts.written
            mine.refused += counts.refused
            mine.bytes_out += counts.bytes_out
        self.notes += [note for note in other.notes if note not in self.notes]
        self.problems += [text for text in other.problems if text not in self.problems]
        self.bytes_in += other.bytes_in

    @property
    def written(self) -> int:
        """Items written to all groups."""
        return sum(counts.written for counts in self.groups.values())

    @property
    def skipped(self) -> int:
        """Items of all groups that were complete already."""
        return sum(counts.skipped for counts in self.groups.values())

    @property
    def bytes_out(self) -> int:
        """Bytes written to all groups."""
        return sum(counts.bytes_out for counts in self.groups.values())

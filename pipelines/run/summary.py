"""What an ingest did, group by group."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class GroupCount:
    """What happened to the items of one group."""

    group: str
    written: int = 0
    skipped: int = 0
    refused: int = 0
    bytes_out: int = 0


@dataclass
class Summary:
    """What an ingest did. `problems` non-empty means exit code 1."""

    groups: dict[str, GroupCount] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_in: int = 0
    seconds: float = 0.0

    def count(self, group: str) -> GroupCount:
        """The counters of a group."""
        return self.groups.setdefault(group, GroupCount(group))

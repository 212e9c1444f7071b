"""What a run would do: items, bytes and work, said before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from taqstore.errors import TaqError


@dataclass
class GroupPlan:
    """What would happen to the items of one group.

    Parameters
    ----------
    of
        What the group is of, where its path does not say it: a variant.
    to_write, done
        Items that would be written, and items that are complete and would be left.
    bytes, files
        Of data that would be written; flags of items and, of a new group, documents are among the
        files.
    """

    of: str = ""
    to_write: int = 0
    done: int = 0
    bytes: int = 0
    files: int = 0


@dataclass
class Plan:
    """What a run would do.

    Parameters
    ----------
    groups
        By path of the group.
    free
        Bytes free where they would be written; None: not known.
    unit, amount
        What the run takes its time with, and how many: `forwards` of the model, `iterations`,
        `linears`, `bytes`.
    seconds
        How long that would take; None: not known.
    known
        How the time is known.
    at_most
        Groups whose bytes are an upper bound: nothing tells how well they compress.
    refused
        What the run would be refused with once it has counted.
    made
        The groups were made, with all coordinates and shapes: see `Mode.groups_only`.
    """

    groups: dict[str, GroupPlan] = field(default_factory=dict)
    free: int | None = None
    unit: str = "forwards"
    amount: int = 0
    seconds: float | None = None
    known: str = ""
    at_most: set[str] = field(default_factory=set)
    refused: TaqError | None = None
    made: bool = False

    def group(self, path: str) -> GroupPlan:
        """The plan of a group."""
        return self.groups.setdefault(path, GroupPlan())

    @property
    def bytes(self) -> int:
        """Bytes that would be written to all groups."""
        return sum(group.bytes for group in self.groups.values())

    @property
    def files(self) -> int:
        """Files that would be written to all groups."""
        return sum(group.files for group in self.groups.values())

"""How a run treats what is there already, and which part of it this process does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from taqstore.errors import MisuseError
from taqstore.run.progress import SILENT, Progress
from taqstore.run.share import Shard


@dataclass(frozen=True)
class Mode:
    """How to treat what is there already, whom to tell, and how to share the work.

    Units are what a process takes at once: an image, a batch of statistics, a block, an input, a
    target. They are numbered as the groups have them, whatever is written already.

    Parameters
    ----------
    resume
        Skip what is complete. Without it, finding complete items is an error. A shard always does.
    force
        Replace the groups that the run fills.
    progress
        Told how far the run is.
    dry_run
        Write nothing: `Outcome.plan` says what would be written, and how long it would take. What
        the run would be refused with is raised.
    shard
        Units that are this process's; None: all that no other process holds.
    wait
        Seconds to wait at the end for units that other processes hold, since the last of them was
        finished; one that its process has let go of is then done here. 0: they are left to these,
        which is a note.
    scheduler
        Where units are done, see `taqstore.pipelines.tasks.cluster`; None: here, one after another.
    groups_only
        Make the groups with all coordinates and shapes, and fill none; `Outcome.plan` counts what
        is to be filled.
    only
        Numbers of the units to do, as a task of a cluster does: it leaves closing the groups and
        the record of the run to whoever sent it. None: all.

    Raises
    ------
    MisuseError
        Parameters that exclude each other.
    """

    resume: bool = False
    force: bool = False
    progress: Progress = SILENT
    dry_run: bool = False
    shard: Shard | None = None
    wait: float = 0.0
    scheduler: str | None = None
    groups_only: bool = False
    only: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if self.shard is not None:
            for name, given in (
                ("force", self.force),
                ("scheduler", self.scheduler is not None),
                ("groups_only", self.groups_only),
            ):
                if given:
                    raise MisuseError(f"shard and {name} exclude each other")
            object.__setattr__(self, "resume", True)

    @property
    def shared(self) -> bool:
        """Whether other processes are known to fill the same groups."""
        return self.shard is not None or self.only is not None

    def mine(self, numbers: Iterable[int]) -> list[int]:
        """Those of these numbers of units that this process is to do."""
        return [int(number) for number in numbers if self._has(int(number))]

    def _has(self, number: int) -> bool:
        if self.only is not None and number not in self.only:
            return False
        return self.shard is None or self.shard.has(number)

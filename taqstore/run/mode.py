"""How a run treats what is there already."""

from __future__ import annotations

from dataclasses import dataclass

from taqstore.run.progress import SILENT, Progress


@dataclass(frozen=True)
class Mode:
    """How to treat what is there already, and whom to tell.

    Parameters
    ----------
    resume
        Skip what is complete. Without it, finding complete items is an error.
    force
        Replace the groups that the run fills.
    progress
        Told how far the run is.
    dry_run
        Write nothing: `Outcome.plan` says what would be written, and how long it would take. What
        the run would be refused with is raised.
    """

    resume: bool = False
    force: bool = False
    progress: Progress = SILENT
    dry_run: bool = False

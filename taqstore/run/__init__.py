"""The vocabulary of every run that fills a store: how it behaves, what it did, whom it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.run.mode import Mode as Mode
    from taqstore.run.outcome import Counts as Counts
    from taqstore.run.outcome import Outcome as Outcome
    from taqstore.run.plan import GroupPlan as GroupPlan
    from taqstore.run.plan import Plan as Plan
    from taqstore.run.progress import Progress as Progress

lazy_face(
    __name__,
    {
        "Counts": "taqstore.run.outcome",
        "GroupPlan": "taqstore.run.plan",
        "Mode": "taqstore.run.mode",
        "Outcome": "taqstore.run.outcome",
        "Plan": "taqstore.run.plan",
        "Progress": "taqstore.run.progress",
    },
)

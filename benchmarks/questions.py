"""Every question, by its name on the command line, in the order of the report."""

from __future__ import annotations

from .analyses import ANALYSES
from .batches import BATCHES
from .ingest import INGEST
from .minibatches import MINIBATCHES
from .question import Question
from .startup import STARTUP
from .statistics_export import STATISTICS_EXPORT
from .statistics_reads import STATISTICS_READS

SIZES = "sizes"
GROUPS = {"analyses": tuple(ANALYSES)}
"""Names that stand for several questions."""
QUESTIONS: dict[str, Question] = {
    **INGEST,
    **STATISTICS_READS,
    **STATISTICS_EXPORT,
    **MINIBATCHES,
    **BATCHES,
    **ANALYSES,
    **STARTUP,
}

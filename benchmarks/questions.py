"""Every question, by its name on the command line, in the order of the report."""

from __future__ import annotations

from .ingest import INGEST
from .minibatches import MINIBATCHES
from .question import Question
from .startup import STARTUP
from .statistics_export import STATISTICS_EXPORT
from .statistics_reads import STATISTICS_READS

SIZES = "sizes"
QUESTIONS: dict[str, Question] = {
    **INGEST,
    **STATISTICS_READS,
    **STATISTICS_EXPORT,
    **MINIBATCHES,
    **STARTUP,
}

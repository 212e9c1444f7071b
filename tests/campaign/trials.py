"""What was tried and what failed, counted for the table."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic


@dataclass
class Trials:
    """One row of the table: how often something was tried, and each failure in a line.

    Parameters
    ----------
    part, what
        Which promise is tried, and on what.
    """

    part: str
    what: str
    count: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @contextmanager
    def trial(self, label: object) -> Iterator[None]:
        """Count one trial; whatever is raised in it is its failure, and the next one follows."""
        started, self.count = monotonic(), self.count + 1
        try:
            yield
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
            lines = str(error).splitlines() or [""]
            self.failures.append(f"{label}: {type(error).__name__} {lines[0]} ({place})")
        finally:
            self.seconds += monotonic() - started


def spread(number: int, most: int | None) -> list[int]:
    """At most so many of the numbers below one, evenly; all where there is no limit."""
    if most is None or number <= most:
        return list(range(number))
    if most == 1:
        return [number // 2]
    return sorted({round(i * (number - 1) / (most - 1)) for i in range(most)})


def table(rows: Sequence[Trials]) -> str:
    """The table, and below it every failure."""
    lines = ["| promise | tried on | trials | failures | s |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.part} | {r.what} | {r.count} | {len(r.failures)} | {r.seconds:.0f} |" for r in rows
    ]
    failed = [f"{r.part}, {r.what}: {line}" for r in rows for line in r.failures]
    return "\n".join([*lines, "", *failed])

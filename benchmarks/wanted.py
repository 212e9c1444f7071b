"""What was found beside what is wanted: a row of a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure, and the most that it should be; None: it is told and not judged."""

    what: str
    found: float
    wanted: float | None = None
    unit: str = "requests"

    @property
    def met(self) -> bool:
        """Whether it is no more than it should be."""
        return self.wanted is None or self.found <= self.wanted

    @property
    def line(self) -> str:
        """A row of the table."""
        wanted = "" if self.wanted is None else f"<= {self.wanted:g}"
        judged = "" if self.wanted is None else "yes" if self.met else "NO"
        return f"| {self.what} | {self.found:g} | {wanted} | {self.unit} | {judged} |"


HEAD = "| what | found | wanted | unit | met |\n|---|---|---|---|---|"

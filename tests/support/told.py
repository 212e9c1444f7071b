"""Progress that remembers what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Told:
    """Totals, and (label, amount) of every advance."""

    totals: list[int] = field(default_factory=list)
    advances: list[tuple[str, int]] = field(default_factory=list)

    def start(self, total: int) -> None:
        self.totals.append(total)

    def advance(self, label: str, amount: int = 1) -> None:
        self.advances.append((label, amount))

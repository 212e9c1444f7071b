"""One thing looked at on a machine, and what was found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "absent", "slow", "wrong"]


@dataclass(frozen=True)
class Check:
    """What a machine has of one thing.

    Parameters
    ----------
    what
        The thing, in a word or two.
    found
        What is there.
    state
        `ok`; `absent`: something works less without it; `slow`; `wrong`: nothing can be relied on.
    remedy
        What to do; empty where nothing is to be done.
    """

    what: str
    found: str
    state: State = "ok"
    remedy: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

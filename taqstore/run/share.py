"""Which units of a run are this process's, where several work on one store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from taqstore.asked import whole_number
from taqstore.errors import MisuseError, problem

_WRITTEN = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """Units whose number modulo `count` is `index`.

    By the remainder, not by ranges: units that are still to do are spread evenly whatever is done
    already, and none changes hands when images are added.

    Parameters
    ----------
    index
        From 0.
    count
        How many shards there are.

    Raises
    ------
    MisuseError
        There is no such shard.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        whole_number(self.count, "shards", least=1)
        whole_number(self.index, "shard", least=0)
        if self.index >= self.count:
            what = f"there is no shard {self.index} of {self.count}"
            remedy = f"they count from 0 to {self.count - 1}"
            raise MisuseError(problem(what, remedy=remedy))

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Understand `K/N`, like `0/8`.

        Raises
        ------
        MisuseError
            It is not written so, or there is no such shard.
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            what = f"{text!r} is no shard"
            raise MisuseError(problem(what, remedy="write it like 0/8: the first of eight"))
        return cls(int(match[1]), int(match[2]))

    def has(self, number: int) -> bool:
        """Whether a unit is of this shard, by its number in the whole run."""
        return number % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

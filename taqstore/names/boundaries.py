"""Boundaries of residual streams that a run keeps only while it needs them: a group for each.

Boundary i of a stream is the group `blocks/<stream>.boundary-<i>`, as the model computed it; that
of another weight set than `adaround` is `blocks/<stream>.boundary-<i>.<set>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from taqstore.names import BLOCKS

_NAME = re.compile(r"(img|txt|uni)\.boundary-(\d{1,4})(?:\.([a-z][a-z0-9_-]{0,31}))?")


@dataclass(frozen=True)
class Boundary:
    """One boundary of one stream; `set` is the weight set that it is for, unless `adaround`."""

    stream: str
    index: int
    set: str = ""

    @classmethod
    def parse(cls, name: str) -> Boundary | None:
        """The boundary that `img.boundary-3` names; None for the name of anything else."""
        match = _NAME.fullmatch(name)
        return match and cls(match[1], int(match[2]), match[3] or "")

    @property
    def name(self) -> str:
        """What `open_block` calls it among its streams."""
        own = f".{self.set}" if self.set else ""
        return f"{self.stream}.boundary-{self.index}{own}"

    @property
    def path(self) -> str:
        """Its group."""
        return f"{BLOCKS}/{self.name}"

    @property
    def following(self) -> Boundary:
        """The same stream where the block puts it out."""
        return Boundary(self.stream, self.index + 1, self.set)

"""What configs take their clip bounds from: the words of `--clip`."""

from __future__ import annotations

from typing import Literal, get_args

Clip = Literal["absmax", "p999"]
CLIPS: tuple[Clip, ...] = get_args(Clip)

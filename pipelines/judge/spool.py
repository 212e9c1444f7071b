"""Trajectories that are kept for a run alone, on disk: those of a store's own images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from .kept import Sampled


@dataclass
class Spool:
    """Trajectories by place, each made when it is first asked for; memory is that of one.

    Parameters
    ----------
    make
        Samples the trajectory at a place.
    """

    make: Callable[[int], Sampled]
    _places: dict[int, int] = field(default_factory=dict)
    _file: IO[bytes] = field(default_factory=TemporaryFile)

    def at(self, place: int) -> Sampled:
        """The trajectory at a place."""
        if place in self._places:
            self._file.seek(self._places[place])
            return Sampled(np.load(self._file), np.load(self._file))
        made = self.make(place)
        self._places[place] = self._file.seek(0, 2)
        np.save(self._file, made.x)
        np.save(self._file, made.output)
        return made

    def close(self) -> None:
        """Let go of the disk."""
        self._file.close()

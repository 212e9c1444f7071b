"""A question several contenders answer, and its rows: interleaved times, then peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .inputs import Inputs
from .measure import Contender, Ratio, interleave, ratio, warm
from .rows import Row, Target

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Question:
    """One question and who answers it.

    Parameters
    ----------
    name
        As printed.
    contenders
        Made for the inputs of one run; all answer the same.
    files
        Files and folders the contenders read: read once before anything is timed.
    targets
        By the contender compared against, where the target holds for all our ways; or by the pair
        (ours, against).
    rounds
        How often each contender is timed.
    inverse
        Ratios without a target are costs too, ours / theirs.
    peak_limit
        Bytes our process may take at most, where a limit is set.
    measures_peak
        False where our answer is itself another process.
    """

    name: str
    contenders: Callable[[Inputs], Sequence[Contender]]
    files: Callable[[Inputs], Sequence[Path]]
    targets: Mapping[str | tuple[str, str], Target]
    rounds: int = 7
    inverse: bool = False
    peak_limit: float | None = None
    measures_peak: bool = True

    def target(self, ours: str, against: str) -> Target | None:
        """The target of one comparison; None where it is for information."""
        return self.targets.get((ours, against), self.targets.get(against))

    def rows(self, inputs: Inputs, *, key: str, rounds: int | None = None) -> list[Row]:
        """Measure: one row for each of our ways and each contender it is compared against.

        Parameters
        ----------
        key
            Name of the question on the command line, for the process that measures memory.
        rounds
            Instead of the question's own.
        """
        contenders = self.contenders(inputs)
        warm(self.files(inputs))
        seconds = interleave(contenders, rounds=rounds or self.rounds)
        rows, limits = [], []
        for ours in (c for c in contenders if c.ours):
            peak = peak_bytes(inputs, key, ours.name) if self.measures_peak else None
            rows += [
                self._row(ours.name, other.name, seconds, peak)
                for other in contenders
                if not other.ours
            ]
            if peak is not None and self.peak_limit:
                limits.append(self._limit_row(ours.name, peak, self.peak_limit))
        return rows + limits

    def _row(
        self, ours: str, against: str, seconds: Mapping[str, list[float]], peak: int | None
    ) -> Row:
        target = self.target(ours, against)
        mine, theirs = seconds[ours], seconds[against]
        inverse = self.inverse if target is None else not target.at_least
        return Row(
            self.name,
            ours,
            against,
            ratio(mine, theirs) if inverse else ratio(theirs, mine),
            target,
            median(mine),
            median(theirs),
            peak_bytes=peak,
            inverse=inverse,
        )

    def _limit_row(self, ours: str, peak: int, limit: float) -> Row:
        share = peak / limit
        found = Ratio(share, share, share)
        name = f"{self.name}: memory"
        target = Target(1, at_least=False)
        return Row(name, ours, "limit", found, target, peak, limit, "B", peak, inverse=True)


def peak_bytes(inputs: Inputs, key: str, contender: str) -> int:
    """Peak resident memory of a new process in which one contender answers twice."""
    command = [sys.executable, "-m", "benchmarks.peak", key, contender]
    places = ["--work", str(inputs.work), "--scale", str(inputs.scale)]
    done = subprocess.run(
        [*command, *places], cwd=_ROOT, stdout=subprocess.PIPE, check=True, text=True
    )
    return int(json.loads(done.stdout))

"""One action, once, in a process of its own: `python -m benchmarks.growth.once`, by `curves`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..memory import peak_resident_bytes
from .actions import ACTIONS, Action, Run
from .inputs import AXES, MAKERS, Size, sizes

_SHORTEST = 0.3


@dataclass(frozen=True)
class Spent:
    """What one run of an action took: seconds, and bytes at most, imports included."""

    cpu: float
    wall: float
    peak: int


def cpu_seconds() -> float:
    """Processor time of this process, its threads and the children it has waited for."""
    return time.process_time() + sum(os.times()[2:4])


def measure(action: Action, size: Size, folder: Path) -> Spent:
    """Run an action on the smallest input first, so that what it imports is no part of its time."""
    smallest = sizes(action.kind, size.axis, AXES[size.axis][:1])[0]
    for given in (smallest, size):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = _given(action, given, folder, Path(scratch))
            spent = _timed(action.ready(path, Path(scratch), given), once=action.writes)
    return Spent(*spent, peak_resident_bytes())


def _timed(run: Run, *, once: bool) -> tuple[float, float]:
    """Seconds of the processor and of the clock; the mean of several runs where one is short."""
    cpu, wall, runs = cpu_seconds(), time.perf_counter(), 0
    while not runs or (not once and time.perf_counter() - wall < _SHORTEST):
        run()
        runs += 1
    return (cpu_seconds() - cpu) / runs, (time.perf_counter() - wall) / runs


def _given(action: Action, size: Size, folder: Path, scratch: Path) -> Path:
    path = MAKERS[action.kind](folder, size)
    if not action.changes:
        return path
    for beside in path.parent.glob("*.safetensors"):
        (scratch / beside.name).symlink_to(beside)
    return Path(shutil.copytree(path, scratch / path.name))


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth.once", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("count", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    action = ACTIONS[given.action]
    (size,) = sizes(action.kind, given.axis, (given.count,))
    print(json.dumps(asdict(measure(action, size, given.folder))))


if __name__ == "__main__":
    main()

"""Peak memory of one contender, measured in a process of its own: `python -m benchmarks.peak`."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from pathlib import Path

from .inputs import Inputs
from .questions import QUESTIONS

_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Largest resident set of this program so far, mapped file pages included.

    `ru_maxrss` survives exec on Linux: a child would report its parent's size at the fork. There
    `VmHWM` of the same kernel counter is read, which starts anew with the program.
    """
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Let one contender answer two calls and print the peak."""
    parser = argparse.ArgumentParser(prog="benchmarks.peak", description=__doc__)
    parser.add_argument("question")
    parser.add_argument("contender")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scale", type=float, required=True)
    given = parser.parse_args()
    contenders = QUESTIONS[given.question].contenders(Inputs(given.work, given.scale))
    contender = next(c for c in contenders if c.name == given.contender)
    run = contender.setup()
    for call in range(2):
        if contender.prepare:
            contender.prepare()
        run(call)
    print(json.dumps(peak_resident_bytes()))


if __name__ == "__main__":
    main()

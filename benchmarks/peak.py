"""Peak memory of one contender, measured in a process of its own: `python -m benchmarks.peak`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .inputs import Inputs
from .memory import peak_resident_bytes
from .questions import QUESTIONS


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

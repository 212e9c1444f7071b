"""`python -m benchmarks.growth`: curves alone, as `python -m benchmarks --only growth` has them."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path

from ..rows import environment
from .actions import ACTIONS
from .curves import Curve, curves, table
from .folder import in_memory


def main() -> None:
    """Measure what was asked for, print the table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", action="append", choices=ACTIONS, help="may be repeated")
    parser.add_argument("--share", type=float, default=1.0, help="of the largest sizes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the inputs")
    given = parser.parse_args()
    found: list[Curve] = []
    with nullcontext(given.work) if given.work else in_memory() as folder:
        for curve in curves(given.only or list(ACTIONS), folder.absolute(), share=given.share):
            found.append(curve)
            if given.json:  # after each curve: all of them take half an hour
                _write(given.json, found)
    print(table(found))


def _write(target: Path, found: list[Curve]) -> None:
    made = {"environment": environment(), "growth": [curve.as_json() for curve in found]}
    target.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.growth`: curves alone, as `python -m benchmarks --only growth` has them."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from ..rows import environment
from .actions import ACTIONS
from .curves import curves, table

_MEMORY = Path("/dev/shm")


def main() -> None:
    """Measure what was asked for, print the table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", action="append", choices=ACTIONS, help="may be repeated")
    parser.add_argument("--share", type=float, default=1.0, help="of the largest sizes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the inputs")
    given = parser.parse_args()
    folder = given.work or temporary()
    try:
        found = list(curves(given.only or list(ACTIONS), folder.absolute(), share=given.share))
    finally:
        if not given.work:
            shutil.rmtree(folder)
    print(table(found))
    if given.json:
        made = {"environment": environment(), "growth": [curve.as_json() for curve in found]}
        given.json.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def temporary() -> Path:
    """A folder in memory where there is one: 37,000 files take minutes to flush."""
    return Path(tempfile.mkdtemp(prefix="growth-", dir=_MEMORY if _MEMORY.is_dir() else None))


if __name__ == "__main__":
    main()

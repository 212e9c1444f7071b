"""`python -m benchmarks`: measure, print a table, write JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from .inputs import Inputs, say
from .measure import DisagreementError
from .questions import GROUPS, QUESTIONS, SIZES
from .rows import Row, environment, summary, table
from .sizes import size_rows

_NAMES = (*QUESTIONS, SIZES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of SD3-Medium's size")
    parser.add_argument(
        "--only", action="append", choices=(*_NAMES, *GROUPS), metavar="NAME",
        help=f"measure this only; may be repeated: {', '.join((*_NAMES, *GROUPS))}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: WORK/results.json")
    parser.add_argument("--work", type=Path, default=Path("bench-work"), metavar="DIR")
    parser.add_argument("--rounds", type=int, help="instead of each question's own")
    return parser.parse_args()


def main() -> None:
    """Measure what was asked for; answers that differ give no rows and exit code 1."""
    given = _arguments()
    inputs = Inputs(given.work.absolute(), given.scale)
    inputs.forget_stores()
    rows: list[Row] = []
    failures: list[str] = []
    chosen = given.only or _NAMES
    for name in (member for one in chosen for member in GROUPS.get(one, (one,))):
        say(f"measuring {name}")
        started = perf_counter()
        try:
            rows += _measure(inputs, name, given.rounds)
        except DisagreementError as error:
            failures.append(f"{name}: {error}")
            say(failures[-1])
        say(f"  {perf_counter() - started:.0f} s")
    print(table(rows))
    print(summary(rows))
    target = given.json or inputs.work / "results.json"
    _write(target, {"scale": given.scale, "failures": failures}, rows)
    if failures:
        sys.exit(1)


def _measure(inputs: Inputs, name: str, rounds: int | None) -> list[Row]:
    if name == SIZES:
        return size_rows(inputs)
    return QUESTIONS[name].rows(inputs, key=name, rounds=rounds)


def _write(target: Path, report: dict[str, Any], rows: list[Row]) -> None:
    content = {**report, "environment": environment(), "rows": [row.as_json() for row in rows]}
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    say(f"wrote {target}")


if __name__ == "__main__":
    main()

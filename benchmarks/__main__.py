"""`python -m benchmarks`: measure, print a table, write JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from .growth.curves import GROWTH, Curve, curves
from .growth.curves import table as curves_table
from .growth.folder import in_memory
from .inputs import Inputs, say
from .measure import DisagreementError
from .questions import GROUPS, QUESTIONS, SIZES
from .rows import Row, environment, summary, table
from .sizes import size_rows

_NAMES = (*QUESTIONS, SIZES)
_GROUPS = {**GROUPS, "growth": tuple(GROWTH)}
_EVERY = (*_NAMES, *GROWTH, *_GROUPS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of SD3-Medium's size")
    parser.add_argument(
        "--only", action="append", choices=_EVERY, metavar="NAME",
        help=f"measure this only; may be repeated: {', '.join(_EVERY)}",
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
    chosen = given.only or (*_NAMES, *GROWTH)
    names = [member for one in chosen for member in _GROUPS.get(one, (one,))]
    for name in (one for one in names if one not in GROWTH):
        say(f"measuring {name}")
        started = perf_counter()
        try:
            rows += _measure(inputs, name, given.rounds)
        except DisagreementError as error:
            failures.append(f"{name}: {error}")
            say(failures[-1])
        say(f"  {perf_counter() - started:.0f} s")
    if rows:
        print(table(rows))
        print(summary(rows))
    grown = _grown([GROWTH[name] for name in names if name in GROWTH], given.scale)
    target = given.json or inputs.work / "results.json"
    _write(target, {"scale": given.scale, "failures": failures}, rows, grown)
    if failures:
        sys.exit(1)


def _grown(actions: list[str], share: float) -> list[Curve]:
    """Curves of some actions, printed; the scale is the share of the largest sizes."""
    if not actions:
        return []
    with in_memory() as folder:
        found = list(curves(actions, folder, share=min(1.0, share)))
    print(curves_table(found))
    return found


def _measure(inputs: Inputs, name: str, rounds: int | None) -> list[Row]:
    if name == SIZES:
        return size_rows(inputs)
    return QUESTIONS[name].rows(inputs, key=name, rounds=rounds)


def _write(target: Path, report: dict[str, Any], rows: list[Row], grown: list[Curve]) -> None:
    found = {"rows": [row.as_json() for row in rows], "growth": [one.as_json() for one in grown]}
    content = {**report, "environment": environment(), **found}
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    say(f"wrote {target}")


if __name__ == "__main__":
    main()

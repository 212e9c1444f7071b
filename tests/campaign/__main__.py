"""The whole campaign: `make campaign`, or `python -m campaign [--most N] [PART ...]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from campaign import bucket, crowd, damage, kills, power
from campaign.trials import Trials, table

_CROWDED_SECONDS = 120
PARTS: dict[str, Callable[[Path, int | None], Iterator[Trials]]] = {
    "damage": lambda folder, most: damage.damaged_stores(folder, most=most),
    "kills": lambda folder, most: kills.killed_commands(
        folder, most=most, cases=[*kills.CASES, *kills.LIVE]
    ),
    "power": lambda folder, most: power.power_cuts(folder, most=most),
    "crowd": lambda folder, most: crowd.crowds(folder, seconds=_CROWDED_SECONDS),
    "bucket": bucket.whole_campaign,
}


def main(arguments: Sequence[str]) -> int:
    """Run these parts, or all; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--most", type=int, help="trials of a row at most, spread evenly")
    asked = parser.parse_args(arguments)
    rows = []
    for name in asked.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for row in PARTS[name](Path(folder), asked.most):
                print(f"{row.part}, {row.what}: {row.count} trials", file=sys.stderr, flush=True)
                rows.append(row)
    print(table(rows))
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The campaign in short: a few trials of every part, spread over all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaign import bucket, crowd, damage, kills
from campaign.trials import Trials, spread, table
from support.live_capture import needs_models
from support.s3_server import S3Server

ROOT = Path(__file__).parents[2]


def check(rows: Iterator[Trials], least: int) -> None:
    """No failure in any row, and something was tried."""
    done = list(rows)
    assert not any(row.failures for row in done), table(done)
    assert sum(row.count for row in done) >= least


def test_damage(tmp_path: Path) -> None:
    check(damage.damaged_stores(tmp_path, most=5), 6)


# A page of the report takes seconds to make: it is killed in the whole campaign alone.
QUICK = [case for case in kills.CASES if case.name != "report"]


@pytest.mark.parametrize("part", range(2))
def test_kills(tmp_path: Path, part: int) -> None:
    cases = QUICK[part::2]
    check(kills.killed_commands(tmp_path, most=1, cases=cases), len(cases))


@needs_models
def test_kills_of_what_writes_behind_a_model(tmp_path: Path) -> None:
    check(kills.killed_commands(tmp_path, most=1, cases=kills.LIVE), len(kills.LIVE))


def test_power_cuts(tmp_path: Path) -> None:
    """In a process of its own: an audit hook stays."""
    code = (
        "import sys; from pathlib import Path; from campaign import power, trials\n"
        "rows = list(power.power_cuts(Path(sys.argv[1]), most=5))\n"
        "print(trials.table(rows)); sys.exit(any(row.failures for row in rows))"
    )
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_writers_and_readers_at_once(tmp_path: Path) -> None:
    check(crowd.crowds(tmp_path, seconds=0), 1)


def test_writers_of_one_bucket(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    check(bucket.buckets(tmp_path, s3, writers=4, images=24, kills=6, pause=1.0), 1)


def test_trials_go_on_after_a_failure() -> None:
    trials = Trials("part", "what")
    for number in range(3):
        with trials.trial(number):
            assert number != 1, "one is wrong"
    assert (trials.count, len(trials.failures)) == (3, 1)
    assert "one is wrong" in table([trials])


def test_a_spread_keeps_both_ends() -> None:
    assert spread(10, None) == list(range(10))
    assert spread(4, 9) == [0, 1, 2, 3]
    assert spread(101, 3) == [0, 50, 100]

"""`taqstore gate` as a CI calls it: exit codes, what goes where, misuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from support.judged_store import make_judged_store
from support.live_capture import needs_models
from taqstore.cli import cli
from taqstore.errors import MisuseError

pytestmark = needs_models


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_judged_store(tmp_path_factory.mktemp("gate") / "s.zarr")


def run(store: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["gate", str(store), "--seeds", "2", *words])


def test_exit_codes_and_streams(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    good = run(store, "--variant", "whole/a8-static", "-o", str(out))
    assert good.exit_code == 0, (good.output, good.exception)
    header, row = good.stdout.splitlines()
    assert header.split()[:4] == ["variant", "gate", "cosine", "cosine_interval"]
    assert row.split()[:2] == ["whole/a8-static", "passes"]
    assert f"wrote {out}" in good.stderr
    bad = run(store, "--variant", "float/a2-static", "--json")
    assert bad.exit_code == 1
    assert not json.loads(bad.stdout)["variants"][0]["passes"]
    assert "failed: float/a2-static: " in bad.stderr
    assert "worst: 'a handwritten" in bad.stderr
    again = run(store, "--variant", "whole/a8-static", "-o", str(out))
    assert again.exit_code == 1
    assert "exists" in str(again.exception)
    same = run(store, "--variant", "whole/a8-static", "--against", str(out))
    assert same.exit_code == 0
    assert "no worse: whole/a8-static: cosine +0" in same.stderr


def test_bounds_are_what_passes(store: Path) -> None:
    words = ("--variant", "float/a2-static")
    assert run(store, *words, "--min-cosine", "-1").exit_code == 0
    loud = run(store, *words, "--min-cosine", "-1", "--min-psnr", "200")
    assert loud.exit_code == 1
    assert "dB is below 200 dB" in loud.stderr


def test_a_dry_run_prints_what_would_run(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "s.zarr"))
    done = run(copy, "--variant", "rtn/a8-step", "--dry-run", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    rows = json.loads(done.stdout)["groups"]
    assert [row["of"] for row in rows.values()] == ["float", "rtn/a8-step"]
    plain = run(copy, "--variant", "rtn/a8-step", "--dry-run")
    assert plain.stdout.split()[:3] == ["group", "of", "to_write"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--variant", "nonsense/a99"),
        ("--variant", "wholly"),
        ("--variant", "rtn/config"),
        ("--variant", "rtn", "--seeds", "0"),
        ("--variant", "rtn", "--min-cosine", "2"),
        ("--variant", "rtn", "--dry-run", "-o", "x.json"),
        ("--variant", "rtn", "--force"),
        ("--variant", "float", "--weight-bits", "3"),
    ],
)
def test_misuse(store: Path, words: tuple[str, ...]) -> None:
    done = run(store, *words)
    assert done.exit_code == 2 or isinstance(done.exception, MisuseError)


def test_a_store_that_may_not_be_written_is_judged(store: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "s"), "zip", store)
    url = f"zip::file://{archive}"
    done = CliRunner().invoke(cli, ["gate", url, "--variant", "rtn", "--seeds", "1"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "trajectories are not kept" in done.stderr

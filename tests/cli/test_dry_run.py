"""`--dry-run`: writes nothing, counts what the run does, refuses what the run refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.models.rounding import Settings

from support.dry_runs import CASES, REFUSED, Case, copy_for, invoke, make_work, run_words, tree_of
from support.judged_store import forwards_counted
from support.live_capture import needs_models
from support.store_commands import every_command
from taqstore import Store, open_store
from taqstore.run import Mode

pytestmark = needs_models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("dry"))


def test_every_command_that_goes_on_can_be_planned() -> None:
    """Who has `--resume` may run for hours."""
    long = {
        name
        for name, command in every_command().items()
        if "resume" in {parameter.name for parameter in command.params}
    }
    dry_ones = {
        name
        for name, command in every_command().items()
        if "dry_run" in {parameter.name for parameter in command.params}
    }
    assert long | {"gate", "evaluate"} <= dry_ones
    tried = {case.words.split()[0] for case in CASES.values()}
    elsewhere = {"profile", "repair", "pull", "push"}  # tried where they are
    plans = {name for name in dry_ones if name.startswith("plan ")}  # take the options of the run
    assert dry_ones - elsewhere - plans == tried, "a command that is not tried"


@pytest.mark.parametrize("name", CASES)
def test_a_plan_writes_nothing_and_says_what_the_run_does(
    made: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    work = copy_for(case.words, made, tmp_path / "w")
    before = tree_of(work)
    plan = run_words(case.words, work, "--dry-run")
    assert tree_of(work) == before, "a dry run left something"

    with forwards_counted(monkeypatch) as forwards:
        done = run_words(case.words, work)
    counted = plan["bytes_in" if case.unit == "bytes" else case.unit]
    assert plan["unit"] == case.unit
    assert counted > 0
    if case.unit == "forwards":
        assert counted + case.more == sum(forwards.values())
    if case.unit == "bytes":
        assert counted == done["bytes_in"]
    if "groups" in done:
        _compare(plan["groups"], _groups(done["groups"]), case)
    else:
        _compare_stored(plan["groups"], open_store(work / "run.zarr"))
    assert plan["seconds"] > 0
    assert plan["bytes"] < plan["free"]


def _groups(told: Any) -> dict[str, dict[str, int]]:
    return {row["group"]: row for row in told} if isinstance(told, list) else dict(told)


def _compare_stored(plan: dict[str, dict[str, int]], store: Store) -> None:
    for path, told in plan.items():
        assert (told["to_write"], told["done"]) == (int(store.mask(path).sum()), 0), path
        assert told["bytes"] == sum((store.stored_bytes(path) or {}).values()), path


def _compare(plan: dict[str, dict[str, int]], done: dict[str, dict[str, int]], case: Case) -> None:
    # Trajectories by the model as it is are no answer of a command, and not in its table.
    to_write = {p for p, group in plan.items() if group["to_write"]} - {"trajectories/float"}
    assert to_write == {path for path, group in done.items() if group["written"]}
    for path, group in done.items():
        told = plan[path]
        assert (told["to_write"], told["done"]) == (group["written"], group["skipped"]), path
        assert told["at_most"] == (path == "pictures"), path
        assert told["bytes"] == pytest.approx(group["bytes_out"], rel=case.within, abs=0), path


@pytest.mark.parametrize("words", REFUSED)
def test_a_plan_is_refused_as_the_run_is(made: Path, tmp_path: Path, words: str) -> None:
    work = copy_for(words, made, tmp_path / "w")
    before = tree_of(work)
    dry_one = invoke(words, work, "--dry-run")
    assert tree_of(work) == before
    real = invoke(words, work)
    assert dry_one.exit_code == real.exit_code != 0, (dry_one.output, real.output)
    assert str(dry_one.exception) == str(real.exception)


def test_a_place_that_cannot_be_written_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    for name in ("generate", "generate more"):
        done = invoke(CASES[name].words, made, "--dry-run")
        assert done.exit_code == 1
        assert "may not be written" in str(done.exception)


def test_too_little_space_is_said_after_the_table(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cache", "collect.rounds", "run.dry"):
        monkeypatch.setattr(f"taqstore.pipelines.{module}.free_bytes", lambda location: 10)
    for name in ("cache", "collect all"):
        words = CASES[name].words
        work = copy_for(words, made, tmp_path / name)
        dry_one, real = invoke(words, work, "--dry-run"), invoke(words, work)
        assert dry_one.exit_code == real.exit_code == 1
        assert str(dry_one.exception) == str(real.exception)
        assert "to_write" in dry_one.stdout, "the table comes first"
    generate = invoke(CASES["generate"].words, made, "--dry-run")
    assert (generate.exit_code, "more than is free" in generate.stderr) == (0, True)


def test_the_pace_of_the_store_is_used_where_it_is_recorded(made: Path) -> None:
    plan = run_words(CASES["cache more"].words, made, "--dry-run")
    assert plan["known"].startswith("the rate of this store's cache of ")
    record = next(r for r in open_store(made / "part.zarr").provenance if r["command"] == "cache")
    counts = record["counts"]
    assert counts["forwards"] == 3
    assert plan["seconds"] == pytest.approx(plan["forwards"] * counts["milliseconds"] / 3000)
    other = run_words(CASES["cache"].words, made, "--dry-run")
    assert other["known"] == "2 forwards timed now, 5 ms a file"


def test_bad_items_are_named_and_the_exit_code_is_1(made: Path, tmp_path: Path) -> None:
    words = "ingest {w}/bad {w}/new.zarr"
    work = copy_for(words, made, tmp_path / "w")
    done, real = invoke(words, work, "--dry-run", "--json"), invoke(words, work)
    told = [line for line in done.stderr.splitlines() if line.startswith("refused: ")]
    assert told
    assert told == [line for line in real.stderr.splitlines() if line.startswith("refused: ")]


def test_the_table_is_short_and_plain(made: Path) -> None:
    done = invoke(CASES["generate"].words, made, "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["group", "to_write", "done", "bytes"]
    assert lines[1].split() == ["latents", "3", "0", "24.8", "kB"]
    assert lines[2].startswith("writes 24.8 kB (24828 bytes), ")
    assert lines[3].startswith("forwards 9, about ")
    assert len(lines) == 4
    assert "nothing was written; without --dry-run it is" in done.stderr


def test_what_has_nothing_left_to_write_says_so(made: Path, tmp_path: Path) -> None:
    words = f"{CASES['generate'].words} --resume"
    work = copy_for(words, made, tmp_path / "w")
    invoke(words, work)
    done = invoke(words, work, "--dry-run")
    assert done.stderr.splitlines()[-1] == "nothing was written; the store has all of it"


def test_profile_plans_what_it_would_collect(made: Path, tmp_path: Path) -> None:
    words = "profile {w}/latents.zarr --stride 2 --local-ckpt {w}/w.safetensors -o {w}/figures"
    work = copy_for(words, made, tmp_path / "w")
    before = tree_of(work)
    done = invoke(words, work, "--dry-run")
    assert done.exit_code == 0, (done.output, done.exception)
    assert tree_of(work) == before
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "group",
        "activations/mlp.fc2",
        "writes",
        "forwards",
    ]


class _Stops:
    """Progress that is stopped once so many iterations are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, total: int) -> None:
        pass

    def advance(self, label: str, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise KeyboardInterrupt


def test_iterations_behind_a_checkpoint_are_not_counted_again(made: Path, tmp_path: Path) -> None:
    words = "adaround {w}/run.zarr --iterations 9 --batch-size 2 --blocks mm0,mm1 --resume"
    words += " --local-ckpt {w}/w.safetensors"
    work = copy_for(words, made, tmp_path / "w")
    settings, weights = Settings(iterations=9, batch_size=2), work / "w.safetensors"
    store, mode = work / "run.zarr", Mode(progress=_Stops(after=5))
    with pytest.raises(KeyboardInterrupt):
        adaround(
            store,
            settings=settings,
            chosen=["mm0", "mm1"],
            local_ckpt=weights,
            checkpoint_seconds=0,
            mode=mode,
        )
    before = tree_of(work)
    plan = run_words(words, work, "--dry-run")
    assert tree_of(work) == before
    # The fifth was told before it was saved.
    assert plan["iterations"] == 2 * 9 - 4

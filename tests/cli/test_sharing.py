"""`taqstore plan`, `--shard`, `--wait` and `--scheduler`, as they are typed."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import write_checkpoint
from taqstore.cli import COMMANDS
from taqstore.cli.plan import FILLING
from taqstore.place.disk import try_lock
from taqstore.place.location import Location
from taqstore.store.reader import open_store


@pytest.fixture
def generating(tmp_path: Path) -> tuple[str, ...]:
    """The words of a run of the tiny model, the store last."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\nein Hund", encoding="utf-8")
    checkpoint = write_checkpoint(tmp_path / "w.safetensors")
    return ("generate", "--model", "tiny", "--prompts", str(prompts), "--num-images", "4",
            "--steps", "2", "--local-ckpt", str(checkpoint), str(tmp_path / "s.zarr"))  # fmt: skip


@needs_models
def test_plan_then_shards(taq: Runner, generating: tuple[str, ...], tmp_path: Path) -> None:
    planned = taq("plan", *generating, "--json")
    assert planned.code == 0, planned.err
    told = json.loads(planned.out)
    assert told["groups"]["latents"]["to_write"] == 4
    assert (told["dry_run"], told["forwards"]) == (False, 8)
    assert taq("plan", *generating).err.endswith(
        "the groups are there; the same command without plan, and with --resume, fills them\n"
    )
    for shard in ("1/2", "0/2"):
        done = taq(*generating, "--shard", shard, "--json")
        assert done.code == 0, done.err
        counts = json.loads(done.out)["groups"]["latents"]
        assert (counts["written"], counts["skipped"]) == (2, 0)
    store = open_store(tmp_path / "s.zarr")
    assert store.mask("latents").all()
    assert [one["parameters"]["shard"] for one in store.provenance] == ["1/2", "0/2"]
    dry = taq(*generating, "--shard", "0/2", "--dry-run", "--json")
    assert json.loads(dry.out)["groups"]["latents"] | {"bytes": 0} == {
        "of": "", "to_write": 0, "done": 2, "bytes": 0, "files": 0, "at_most": False
    }  # fmt: skip


@needs_models
def test_what_is_left_is_said(taq: Runner, generating: tuple[str, ...], tmp_path: Path) -> None:
    assert taq("plan", *generating).code == 0
    location = Location.parse(tmp_path / "s.zarr")
    name = location.item_lock_name("latents", (2,))
    with try_lock(location.beside("locks") / name, location) as taken:
        assert taken
        done = taq(*generating, "--resume", "--wait", "0.2")
    assert done.code == 0
    assert "waiting for 1 unit that other processes are working on" in done.err
    assert "image 2: another process is writing it; left to that one" in done.err
    assert open_store(location).mask("latents").tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--shard", "2/2"), "there is no shard 2 of 2; they count from 0 to 1"),
        (("--shard", "first"), "'first' is no shard; write it like 0/8"),
        (("--shard", "0/2", "--force"), "--shard and --force exclude each other"),
        (("--shard", "0/2", "--scheduler", "processes"), "--shard and --scheduler exclude"),
        (("--scheduler", "distribute"), "did you mean distributed?"),
        (("--scheduler", "processes:0"), "scheduler 'processes:0' is not known"),
        (("--wait", "-1"), "--wait"),
    ],
)
def test_misuse(
    taq: Runner, generating: tuple[str, ...], words: tuple[str, ...], found: str
) -> None:
    done = taq(*generating, *words)
    assert (done.code, done.out) == (2, ""), done.err
    assert found in done.err


@pytest.mark.parametrize("option", ["--dry-run", "--shard=0/2", "--scheduler=processes"])
def test_a_plan_is_for_all(taq: Runner, generating: tuple[str, ...], option: str) -> None:
    done = taq("plan", *generating, option)
    assert done.code == 2
    assert f"leave {option.partition('=')[0]} out" in done.err


def test_what_fills_nothing_has_no_plan(taq: Runner) -> None:
    done = taq("plan", "evaluate", "s.zarr")
    assert done.code == 2
    assert "command 'evaluate' is not known" in done.err


@pytest.mark.parametrize("name", FILLING)
def test_every_command_that_fills_is_shared_out(name: str) -> None:
    command = import_module(COMMANDS[name][0]).command
    options = {word for param in command.params for word in param.opts}
    assert {"--shard", "--wait", "--scheduler", "--resume"} <= options

"""Every long command, stopped by Ctrl-C, ends with the command that goes on."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from support.cli_runner import Runner
from support.live_capture import needs_models
from taqstore.cli import COMMANDS
from taqstore.cli.long_command import LongCommand
from taqstore.place.location import Location
from taqstore.testing import make_lut_schedule

# Of every long command: operands and options, all of which must come back; `{}` is a folder.
WORDS = {
    "generate": ["{}/a store.zarr", "--model", "tiny", "--prompts", "{}/the prompts.txt",
                 "--images", "2", "--steps", "3", "--local-ckpt", "{}/w.safetensors",
                 "--negative-prompt", "it's --force 'd"],
    "cache": ["{}/a store.zarr", "--images", "0,2-3", "--blocks", "mm0,mm1", "--stride=2"],
    "collect": ["--sites", "mlp.fc2", "{}/a store.zarr", "--histogram-bits", "3", "--json"],
    "adaround": ["{}/a store.zarr", "--rule", "timed", "--shift", "", "--iterations", "7"],
    "gptq": ["--site-bits", "adaln.linear=6", "{}/a store.zarr", "--set=w-3", "--sites",
             "mlp.fc2,adaln.linear", "--grid", "symmetric", "--weight-clip", "mse"],
    "evaluate": ["{}/a store.zarr", "--variant", "rtn", "--variant", "float", "-o", "{}/an out"],
    "gate": ["{}/a store.zarr", "--variant=rtn", "--seeds", "2", "-o", "{}/a record.json"],
    "sensitivity": ["{}/a store.zarr", "--format", "rtn-w3", "--targets", "mm0.*", "--json"],
    "profile": ["{}/a store.zarr", "-o", "{}/some figures", "--stride", "3"],
    "ingest": ["--only", "schedule", "--strict", "--workers", "1", "--", "{}/a lut.json",
               "{}/a store.zarr"],
    "pull": ["{}/a.zarr", "{}/a store.zarr", "--group", "latents", "--image", "0"],
    "push": ["{}/a store.zarr", "{}/b c.zarr", "--step=2"],
    "merge": ["{}/a.zarr", "{}/b c.zarr", "{}/a store.zarr", "--group", "latents", "--renumber",
              "--duplicates", "skip"],
}  # fmt: skip


def command_of(name: str) -> click.Command:
    command: click.Command = import_module(COMMANDS[name][0]).command
    return command


def takes(name: str, option: str) -> bool:
    return any(option in parameter.opts for parameter in command_of(name).params)


LONG = [n for n in COMMANDS if isinstance(command_of(n), LongCommand) or takes(n, "--resume")]
RESUMED = [name for name in LONG if takes(name, "--resume")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs under a path with spaces; whoever opens a store in it is stopped by Ctrl-C."""
    from support.live_models import write_checkpoint

    folder = tmp_path / "my runs"
    folder.mkdir()
    (folder / "the prompts.txt").write_text("a cat\n")
    write_checkpoint(folder / "w.safetensors")
    make_lut_schedule(folder / "a lut.json")

    def interrupt(address: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Location, "parse", interrupt)
    return folder


def words_of(name: str, folder: Path) -> list[str]:
    return [word.format(folder) for word in WORDS[name]]


def test_the_long_commands_are_those_that_are_known_to_be() -> None:
    assert set(LONG) == set(WORDS)
    assert set(LONG) - set(RESUMED) == {"merge", "pull", "push", "evaluate", "gate"}


@needs_models
@pytest.mark.parametrize("name", LONG)
def test_the_last_line_is_the_command_that_goes_on(name: str, folder: Path, taq: Runner) -> None:
    words = words_of(name, folder)
    shown = taq(name, *words)
    assert shown.code == 130, shown.err
    assert shown.out == ""
    last = shlex.split(shown.err.splitlines()[-1])
    assert last[:2] == ["taqstore", name]
    added = ["--resume"] if name in RESUMED else []
    at = words.index("--") if "--" in words else len(words)
    assert last[2:] == [*words[:at], *added, *words[at:]]
    again = taq(*last[1:])  # what is printed is understood, and prints itself
    assert shlex.split(again.err.splitlines()[-1])[0] == "taqstore"
    assert sorted(shlex.split(again.err.splitlines()[-1])) == sorted(last)


@needs_models
@pytest.mark.parametrize("name", [name for name in RESUMED if takes(name, "--force")])
def test_what_was_forced_is_not_forced_again(name: str, folder: Path, taq: Runner) -> None:
    words = words_of(name, folder)
    shown = taq(name, "--force", *words)
    last = shlex.split(shown.err.splitlines()[-1])
    assert "--force" not in last
    assert last.count("--resume") == 1
    assert len(last) == len(words) + 3
    both = taq(name, "--force", "--resume", *words)
    assert both.code == 2
    assert "--resume and --force exclude each other" in both.err


CUT_OFF = """
import asyncio, os, signal, sys, threading
from zarr.core.sync import sync
from taqstore.cli import main
from taqstore.place.location import Location

def interrupted(address):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    sync(asyncio.sleep(3600))

signal.signal(signal.SIGINT, signal.default_int_handler)
Location.parse = interrupted
sys.argv[0] = "taqstore"
main()
"""


def test_a_read_that_was_cut_off_has_not_the_last_word() -> None:
    """Asyncio complains of what is pending when the interpreter ends."""
    words = ["merge", "a.zarr", "b.zarr", "c.zarr"]
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["taqstore", *words]

"""Every command says the same in every run: no order is that of a disk, of a hash or of threads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from taqstore.pipelines.ingest import ingest

from support import shuffled
from support.cli_runner import Runner
from taqstore.testing import RunShape, make_run_folder

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
# What differs between runs, whatever their order: seconds, and how fast.
_SECONDS = re.compile(r"\d+\.\d s\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, the run folder it came from, and one with many bad files."""
    folder = tmp_path_factory.mktemp("order")
    make_run_folder(folder / "run", shape=SHAPE)
    ingest([folder / "run"], folder / "store.zarr")
    shutil.copytree(folder / "run", folder / "bad")
    for file in (folder / "bad" / "adaround_cache" / "samples").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    return folder


Answers = dict[str, list[str]]


@pytest.fixture(scope="module")
def answers(folder: Path) -> tuple[Answers, Answers]:
    """What commands say on a terminal of 80 columns, under two orders."""
    children = []
    for seed in ("1", "2"):
        (folder / seed).mkdir()
        paths = folder / "store.zarr", folder / seed / "work", folder / f"{seed}.json"
        words = [sys.executable, str(Path(shuffled.__file__)), seed, *map(str, paths)]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "COLUMNS": "80"}
        children.append(subprocess.Popen(words, env=environment))
    assert [child.wait() for child in children] == [0, 0]
    return _read(folder, "1"), _read(folder, "2")


def _read(folder: Path, seed: str) -> Answers:
    text = (folder / f"{seed}.json").read_text(encoding="utf-8")
    found: Answers = json.loads(_SECONDS.sub("- s", text.replace(str(folder / seed), "WORK")))
    return found


def test_every_command_says_the_same(answers: tuple[Answers, Answers]) -> None:
    first, second = answers
    assert list(first) == list(second)
    assert {name: said for name, said in first.items() if said != second[name]} == {}
    assert [code for code, _, _ in first.values()].count("0") > 25


def test_bad_files_are_named_in_their_order(taq: Runner, tmp_path: Path) -> None:
    """By every thread at once, and in the order of the files."""
    shape = RunShape(images=12, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
    make_run_folder(tmp_path / "run", shape=shape, parts=["blocks"])
    files = sorted((tmp_path / "run").rglob("????_???.npz"))
    for file in files[1:]:
        file.write_bytes(file.read_bytes()[: -40 if file.stem[-1] == "0" else 9])
    said = taq("ingest", tmp_path / "run", tmp_path / "s.zarr", "--workers", "4")
    named = re.findall(r"refused: \S*(\d{4}_\d{3}\.npz)", said.err)
    assert (said.code, named) == (1, [file.name for file in files[1:]])
    assert len(named) > 2


def test_every_table_fits(answers: tuple[Answers, Answers]) -> None:
    """Lines that are no tables name files: `damaged`, and what verify counted."""
    wide = {
        name: [line for line in out.splitlines() if len(line) > 80]
        for name, (_, out, _) in answers[0].items()
        if not name.startswith(("verify", "repair"))
    }
    assert {name: lines for name, lines in wide.items() if lines} == {}
    assert any("all rows: " in out for _, out, _ in answers[0].values())

"""A path that is not there: the one that was meant is named, however it was missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.hostile import make_small
from taqstore.errors import StoreError
from taqstore.metadata.near import near_path
from taqstore.store.reader import open_store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_small(tmp_path / "runs" / "monday.zarr")
    (tmp_path / "runs" / "monday.txt").write_text("a prompt\n", encoding="utf-8")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / ".hidden.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("runs/mondy.zarr", "did you mean runs/monday.zarr?"),
        ("runs/Monday.zarr", "did you mean runs/monday.zarr?"),
        ("runs/monday.zr", "did you mean runs/monday.zarr?"),
        ("runs/nothing.zarr", "there is runs/monday.zarr"),
        ("rusn/monday.zarr", "did you mean runs/monday.zarr?"),
        ("rusn/mondy.zarr", "did you mean runs/monday.zarr?"),
        ("runs", "did you mean runs/monday.zarr?"),
        (".", "did you mean runs/monday.zarr?"),
        ("runs/empty", "there is runs/monday.zarr"),
        ("runs/monday.txt", "there is runs/monday.zarr"),
        (
            "runs/monday.zarr/latents",
            "it lies in the store runs/monday.zarr: name that, and latents as its group",
        ),
        ("s3://runs/mondy.zarr", ""),
        ("nothing/like/it.zarr", ""),
        ("no\0thing/b", ""),
    ],
)
def test_a_store(folder: Path, typed: str, said: str) -> None:
    assert near_path(typed, stores=True) == said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("runs/mondy.txt", "did you mean runs/monday.txt?"),
        ("rusn/monday.txt", "did you mean runs/monday.txt?"),
        ("runs/hidden.txt", ""),
        ("runs/noted.txt", ""),
        ("runs/.hiddenn.txt", "did you mean runs/.hidden.txt?"),
        ("rusn/nothing.doc", ""),
    ],
)
def test_a_file(folder: Path, typed: str, said: str) -> None:
    assert near_path(typed, stores=False) == said


def test_stores_that_are_many_are_not_all_named(folder: Path) -> None:
    for day in range(5):
        make_small(folder / "many" / f"day{day}.zarr")
    said = near_path("many", stores=True)
    assert said == "stores in it: many/day0.zarr, many/day1.zarr, many/day2.zarr, ..."


def test_whoever_opens_one_is_told(folder: Path, taq: Runner) -> None:
    said = f"did you mean {folder}/runs/monday.zarr?"
    with pytest.raises(StoreError, match="did you mean"):
        open_store("runs/mondy.zarr")
    for words in (["info"], ["verify"], ["query"], ["collect"], ["merge", "runs/monday.zarr"]):
        command, *first = words
        rest = {"query": ["latents"], "merge": ["out.zarr"]}.get(command, [])
        done = taq(command, *first, "runs/mondy.zarr", *rest)
        assert done.code == 1
        assert said in done.err
    done = taq("ingest", "runs/mondy.txt", "new.zarr")
    assert "did you mean runs/monday.txt?" in done.err

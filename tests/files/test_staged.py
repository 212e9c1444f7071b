"""Outputs appear whole or not at all, and replace only what they may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import killed_writers
from support.killed_writers import CONTENT, WRITERS, write_folder
from taqstore.errors import TaqError
from taqstore.files.staged import whole_file, whole_folder


def texts(folder: Path) -> set[str]:
    files = [folder, *folder.rglob("*")]
    return {path.read_text() for path in files if path.is_file()}


def test_a_failed_last_rename_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    with pytest.raises(TaqError, match="No such file"), whole_file(out, force=True):
        pass  # nothing was made, so there is nothing to rename
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_an_error_inside_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder("old", out)

    def stopped() -> None:
        with whole_folder(out, content=CONTENT, force=True) as fresh:
            fresh.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert texts(out) == {"old"}
    assert list(tmp_path.iterdir()) == [out]


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    write_folder("kept", tmp_path / "kept")
    (tmp_path / "out").symlink_to("kept")
    write_folder("new", tmp_path / "out", force=True)
    assert not (tmp_path / "out").is_symlink()
    assert texts(tmp_path / "kept") == {"kept"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "out"]


@pytest.mark.parametrize("extra", ["notes.txt", "parts/0.bin.bak", ".git/HEAD", "parts/x/link"])
def test_a_folder_with_other_content_is_spared(tmp_path: Path, extra: str) -> None:
    out = tmp_path / "out"
    write_folder("old", out)
    (out / extra).parent.mkdir(exist_ok=True)
    if extra.endswith("link"):
        (out / extra).symlink_to(tmp_path)
    else:
        (out / extra).write_text("mine")
    with pytest.raises(TaqError, match=r"not an earlier output of this kind.*found .*"):
        write_folder("new", out, force=True)
    assert "old" in (out / "list.json").read_text()
    assert os.path.lexists(out / extra)


def test_a_folder_without_its_mark_is_spared_and_an_empty_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / "parts/0.bin").write_text("mine")
    with pytest.raises(TaqError, match=r"found no list\.json"):
        write_folder("new", out, force=True)
    (out / "parts/0.bin").unlink()
    write_folder("new", out, force=True)
    assert texts(out) == {"new"}


def test_files_and_folders_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TaqError, match="not a folder"):
        write_folder("new", tmp_path / "file", force=True)
    with pytest.raises(TaqError, match="not a file"), whole_file(tmp_path, force=True):
        raise AssertionError("never asked for")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TaqError, match="not a file"), whole_file(tmp_path / "fifo", force=True):
        raise AssertionError("never asked for")
    assert texts(tmp_path) == {"mine"}


def test_a_second_writer_of_one_output_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_file(out) as first:
        first.write_text("first")
        with pytest.raises(TaqError, match="another process is writing"), whole_file(out):
            raise AssertionError("never asked for")
        assert first.exists()
    assert out.read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


def test_a_work_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / ".out.partial/mine"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(TaqError, match="in the way of an output"), whole_file(tmp_path / "out"):
        raise AssertionError("never asked for")
    assert [p.name for p in tmp_path.rglob("*")] == [".out.partial", "mine"]


@pytest.mark.parametrize("kind", WRITERS)
def test_after_a_kill_anywhere_the_old_output_or_the_new_one_is_there(
    tmp_path: Path, kind: str
) -> None:
    """One of them is whole at every point; the next writer finds it, and clears up."""
    subprocess.run([sys.executable, killed_writers.__file__, kind, tmp_path], check=True)
    states = sorted(tmp_path.iterdir())
    assert len(states) > 8
    found = [_found(state) for state in states]
    assert {"old", "new"} == {text for text, _ in found}
    assert all(in_place for text, in_place in found if kind == "file" or text == "new")
    for state in states:
        with pytest.raises(TaqError, match="the target exists"):
            WRITERS[kind]("next", state / "out")
        WRITERS[kind]("next", state / "out", force=True)
        assert [p.name for p in state.iterdir()] == ["out"]
        assert texts(state) == {"next"}


def _found(state: Path) -> tuple[str, bool]:
    """What a killed writer left, and whether it stands in its place."""
    out, aside = state / "out", state / ".out.partial/old"
    (text,) = texts(out if out.exists() else aside)
    return text, out.exists()

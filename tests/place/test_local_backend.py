"""Files of a local store come into place whole, whatever other writers take away meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from taqstore.errors import StoreError
from taqstore.place import plain_files
from taqstore.place.local_backend import LocalBackend


@pytest.mark.parametrize("together", [False, True])
def test_another_writer_takes_the_work_folder_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """After it was made, before a file is made in it, twice."""
    (tmp_path / "s.zarr").mkdir()
    work, make, left = tmp_path / ".s.zarr.work", os.mkdir, [True, True]

    def taken_away(path: Any, **how: Any) -> None:
        make(path, **how)
        if str(path) == str(work) and left:
            left.pop()
            work.rmdir()

    monkeypatch.setattr(os, "mkdir", taken_away)
    backend = LocalBackend(tmp_path / "s.zarr")
    if together:
        backend.write_all({"a/b": b"here"})
    else:
        backend.write("a/b", [b"here"])
    assert left == []
    assert (tmp_path / "s.zarr/a/b").read_bytes() == b"here"
    assert list(work.iterdir()) == []


def test_one_file_of_many_that_cannot_be_flushed_brings_none_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.zarr").mkdir()
    backend, flush = LocalBackend(tmp_path / "s.zarr"), plain_files.flush_path

    def failing(path: str) -> None:
        if Path(path).name.startswith("c.17."):
            raise OSError(errno.EIO, "Input/output error")
        flush(path)

    monkeypatch.setattr(plain_files, "flush_path", failing)
    with pytest.raises(OSError, match="Input/output"):
        backend.write_all({f"a/c.{n}": b"x" for n in range(40)})
    assert list((tmp_path / "s.zarr/a").iterdir()) == []
    assert list((tmp_path / ".s.zarr.work").iterdir()) == []


def test_a_folder_that_could_not_be_flushed_is_flushed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.zarr").mkdir()
    backend, flushed = LocalBackend(tmp_path / "s.zarr"), list[str]()
    for n in range(5):
        backend.write(f"g/{n}/x", [b"x"])

    def failing(path: str) -> None:
        flushed.append(Path(path).name)
        if flushed[-1] == "3" and flushed.count("3") == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(plain_files, "flush_path", failing)
    with pytest.raises(OSError, match="Input/output"):
        backend.flush()
    flushed.clear()
    flushed.append("3")  # it fails once
    backend.flush()
    assert sorted(flushed[1:]) == ["0", "1", "2", "3", "4", "g", "s.zarr"]
    flushed.clear()
    backend.flush()
    assert flushed == []


@pytest.mark.parametrize("level", ["a", "a/b"])
@pytest.mark.parametrize("told", [True, False])
def test_a_link_that_comes_between_two_writes_is_not_followed(
    tmp_path: Path, level: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, elsewhere = tmp_path / "s.zarr", tmp_path / "elsewhere"
    store.mkdir()
    if not told:  # a system that does not say where an open folder lies
        monkeypatch.setattr("taqstore.place.plain_files._as_the_system_says", lambda folder: None)
    backend = LocalBackend(store)
    backend.write("a/b/c", [b"1"])
    (store / level).rename(elsewhere)
    (store / level).symlink_to(elsewhere, target_is_directory=True)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(StoreError, match="link"):
        backend.write("a/b/d", [b"2"])
    assert sorted(elsewhere.rglob("*")) == before


def test_a_folder_that_goes_between_two_writes_is_made_again(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.write("a/b/c", [b"1"])
    shutil.rmtree(tmp_path / "a")
    backend.write("a/b/d", [b"2"])
    assert backend.read("a/b/d") == b"2"

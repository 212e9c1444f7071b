"""Files of a local store come into place whole, whatever other writers take away meanwhile."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

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

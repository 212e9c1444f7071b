"""Flags of one commit are put together, after all data they stand for are on the disk."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from taqstore.items.flag_files import flag_files, write_flag_files
from taqstore.place.local_backend import LocalBackend

RECORDS = {(n,): bytes([n]) * 20 for n in range(4)}


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    (tmp_path / "s.zarr").mkdir()
    return LocalBackend(tmp_path / "s.zarr")


def flags_of(backend: LocalBackend) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(backend.folder.rglob("c.*"))}


def test_together_they_are_what_they_are_alone(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "alone.zarr").mkdir()
    alone = LocalBackend(tmp_path / "alone.zarr")
    for item, record in RECORDS.items():
        write_flag_files(alone, flag_files("g", {item: record}))
    write_flag_files(backend, flag_files("g", RECORDS))
    assert len(flags_of(backend)) == len(RECORDS)
    assert flags_of(backend) == flags_of(alone)


@pytest.mark.parametrize("stop", range(len(RECORDS)))
def test_stopped_between_two_each_that_is_there_is_whole(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: int
) -> None:
    put, left = LocalBackend._put, list(range(stop))

    def stopping(self: LocalBackend, temporary: Path, path: Path) -> None:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()
        put(self, temporary, path)

    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "_put", stopping)
        with pytest.raises(OSError, match="No space"):
            write_flag_files(backend, flag_files("g", RECORDS))
    found = flags_of(backend)
    write_flag_files(backend, flag_files("g", RECORDS))
    assert len(found) == stop
    assert found.items() <= flags_of(backend).items()
    assert list((tmp_path / ".s.zarr.work").iterdir()) == []


def test_a_commit_flushes_data_then_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from campaign.stores import one_kind, write

    order, flush, put_all = list[str](), LocalBackend.flush, LocalBackend.write_all

    def flushing(self: LocalBackend) -> None:
        order.append("flush")
        flush(self)

    def writing(self: LocalBackend, files: Mapping[str, bytes]) -> None:
        flags = any("/c." in key and "/commit/" in key for key in files)
        order.extend(["flags"] * flags)
        put_all(self, files)

    def putting(self: LocalBackend, *given: Any) -> int:
        order.append("data")
        return plain(self, *given)

    plain = LocalBackend.write
    monkeypatch.setattr(LocalBackend, "flush", flushing)
    monkeypatch.setattr(LocalBackend, "write_all", writing)
    monkeypatch.setattr(LocalBackend, "write", putting)
    write(tmp_path / "s.zarr", one_kind([0, 1]))
    at = [n for n, what in enumerate(order) if what == "flags"]
    assert at
    for n in at:
        assert order[n - 1] == "flush"
        assert order[n + 1] == "flush"

"""A store is itself however its path is spelled: its locks exclude, and say for whom one waits."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from support.cli_runner import Runner
from support.hostile import LATENTS, make_small, small_latents
from taqstore.errors import StoreError
from taqstore.place import disk
from taqstore.place.disk import disk_errors, lock, try_lock
from taqstore.place.location import Location
from taqstore.store.writer import create_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    return make_small(tmp_path / "deep" / "s.zarr").path


def spellings(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Addresses of one store."""
    top = store.parents[1]
    (top / "to-store").symlink_to(store, target_is_directory=True)
    (top / "to-folder").symlink_to(store.parent, target_is_directory=True)
    monkeypatch.chdir(store.parent)
    yield str(store)
    yield store.name
    yield f"./{store.name}/"
    yield f"../{store.parent.name}/{store.name}"
    yield str(store.parent / ".." / "deep" / "." / store.name)
    yield str(top / "to-store")
    yield str(top / "to-folder" / store.name)
    yield f"file://{store}"
    yield f"file://localhost{store}"
    yield f"file:{store}"
    yield f"FILE://{store}".replace("s.zarr", "%73.zarr")
    yield f"local://{store}"


def test_every_spelling_leads_to_the_same_locks(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Location.parse(address) for address in spellings(store, monkeypatch)]
    assert {location.beside("lock") for location in found} == {store.parent / ".s.zarr.lock"}
    assert all(location.same_as(found[0]) for location in found)
    assert not found[0].same_as(Location.parse(store.parent / "other.zarr"))


def test_two_writers_through_two_spellings_do_not_do_one_item(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = list(spellings(store, monkeypatch))
    with create_store(addresses[0]) as first:
        mine = first.group(small_latents())
        with mine.claim((0,)) as held:
            assert held
            for address in addresses[1:]:
                second = create_store(address)
                with second, second.group(small_latents()).claim((0,)) as too:
                    assert not too, address


def test_two_changes_of_structure_through_two_spellings_exclude_each_other(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = list(spellings(store, monkeypatch))
    with lock(Location.parse(addresses[0]), "lock"):
        for address in addresses[1:]:
            other = lock(Location.parse(address), "lock", timeout=0.05)
            with pytest.raises(StoreError, match="another process"), other:
                pass


def test_a_merge_into_one_of_its_sources_is_refused_by_any_name(
    store: Path, monkeypatch: pytest.MonkeyPatch, taq: Runner
) -> None:
    other = make_small(store.parent / "other.zarr").path
    for address in spellings(store, monkeypatch):
        done = taq("merge", store, other, address, "--duplicates", "keep", "--renumber")
        assert done.code == 1
        assert "one of the sources" in done.err, address


def test_who_waits_is_told_for_whom_and_since_when(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    location = Location.parse(store)
    code = (
        "import sys, time; sys.argv = ['taqstore', 'collect', 's.zarr']\n"
        "from taqstore.place.disk import lock\n"
        "from taqstore.place.location import Location\n"
        f"with lock(Location.parse({str(store)!r}), 'lock'):\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        threading.Timer(2.5, lambda: print(file=holder.stdin, flush=True)).start()
        with lock(location, "lock"):
            pass
    (line,) = capsys.readouterr().err.splitlines()
    assert str(store) in line
    assert f"process {holder.pid} on {os.uname().nodename}" in line
    assert "taqstore collect s.zarr" in line
    assert "since 20" in line
    assert not location.beside(disk.HOLDER).exists()


def test_a_lock_that_never_comes_is_one_line(
    store: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LOCK_SECONDS", 0.1)
    with lock(Location.parse(store), "lock"):
        done = taq("repair", store)
    assert done.code == 1
    assert "waiting for" in done.err
    assert f"process {os.getpid()}" in done.err.splitlines()[-1]


def refusing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def acquire(self: filelock.BaseFileLock, timeout: float | None = None, **_: Any) -> None:
        raise error

    monkeypatch.setattr(filelock.BaseFileLock, "acquire", acquire)


REFUSALS = {
    "no locks": OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)),
    "no such call": OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)),
    "no flock": NotImplementedError("FileSystem does not appear to support flock"),
    "a failing disk": OSError(errno.EIO, os.strerror(errno.EIO)),
    "a lost file": OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    "a circle": OSError(errno.ELOOP, os.strerror(errno.ELOOP)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_where_there_are_no_locks_one_line_says_so(
    store: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refusing(monkeypatch, REFUSALS[name])
    done = taq("repair", store)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"taqstore: {store}: ")
    with pytest.raises(StoreError):
        create_store(store)
    location = Location.parse(store)
    with pytest.raises(StoreError), try_lock(location.beside("locks") / "x.lock", location):
        pass


ERRORS = [
    errno.EIO,
    errno.ESTALE,
    errno.ENOSPC,
    errno.EACCES,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENOLCK,
]


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("command", ["info", "query", "verify", "repair"])
def test_what_a_disk_refuses_to_read_is_one_line(
    store: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch, command: str, number: int
) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).endswith("zarr.json") and str(store) in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    done = taq(command, store, *([LATENTS] if command == "query" else []))
    assert done.code == 1
    if command in ("info", "query"):
        (line,) = done.err.splitlines()
        assert os.strerror(number) in line
    else:
        assert "Traceback" not in done.err


def test_any_number_of_the_system_becomes_a_store_error(store: Path) -> None:
    location = Location.parse(store)
    for number in errno.errorcode:
        with pytest.raises(StoreError), disk_errors(location):
            raise OSError(number, os.strerror(number), "file")
    with pytest.raises(OSError, match="of a codec"), disk_errors(location):
        raise OSError("of a codec")


def test_a_name_too_long_and_a_circle_of_links_are_one_line(tmp_path: Path, taq: Runner) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for address in (tmp_path / ("x" * 300), tmp_path / "a", tmp_path / "zero\0byte"):
        for command in (
            ["info", address],
            ["verify", address],
            ["merge", address, address, address],
        ):
            done = taq(*command)
            assert done.code == 1
            assert len(done.err.splitlines()) == 1
        with pytest.raises(StoreError):
            create_store(address)


def test_a_working_folder_that_is_gone_is_one_line(
    tmp_path: Path, store: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in (["info", "s.zarr"], ["verify", "s.zarr"], ["query", "s.zarr", LATENTS]):
        done = taq(*command)
        assert done.code == 1
        (line,) = done.err.splitlines()
        assert "no working folder" in line
    assert taq("info", store).code == 0, "a full path needs none"

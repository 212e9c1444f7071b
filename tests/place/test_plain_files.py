"""A store holds plain files alone: whatever stands in place of one is refused, never opened."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xarray as xr

from support.cli_runner import Runner
from support.hostile import LATENTS, POOLED, make_small
from support.thinned import in_turn
from taqstore import create_store, open_store
from taqstore.errors import StoreError
from taqstore.place.local_backend import LocalBackend
from taqstore.place.plain_files import is_foreign
from taqstore.upkeep.verify import verify_store


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.mkdir()


def _link(file: Path) -> None:
    # To what was there: its content is right, and its place is not.
    file.symlink_to(file.with_name(f"{file.name}-elsewhere"))


def _broken_link(file: Path) -> None:
    file.symlink_to("nowhere")


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


STRANGERS: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a folder": _folder,
    "a link": _link,
    "a link to nothing": _broken_link,
    "an endless device": _device,
}


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail instead of waiting for ever, as a reader of a pipe does."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def files_of(store: Path) -> list[str]:
    return sorted(str(p.relative_to(store)) for p in store.rglob("*") if p.is_file())


def put(stranger: str, file: Path) -> None:
    file.rename(file.with_name(f"{file.name}-elsewhere"))
    STRANGERS[stranger](file)


@contextmanager
def replaced(stranger: str, file: Path) -> Iterator[None]:
    """A stranger in place of a file, for a while."""
    put(stranger, file)
    try:
        yield
    finally:
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        else:
            file.unlink()
        file.with_name(f"{file.name}-elsewhere").rename(file)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("plain") / "s.zarr").path


def read_all(store: Path) -> dict[str, xr.Dataset]:
    opened = open_store(store)
    return {path: opened[path].load() for path in opened}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_stands_in_place_of_any_file_is_refused(
    tmp_path: Path, small: Path, stranger: str
) -> None:
    whole, refused, store = read_all(small), 0, tmp_path / "s.zarr"
    shutil.copytree(small, store)
    kinds = list(STRANGERS)
    # Each file meets one stranger, each kind of file several.
    names = in_turn(files_of(small), kinds.index(stranger), len(kinds))
    for name in names:
        with within(60), replaced(stranger, store / name):
            try:
                found = read_all(store)
            except StoreError:
                refused += 1
            else:  # of a document, the root has a copy; that of coordinates is for repair
                assert name.endswith("zarr.json") or "/items/coordinates/" in name
                assert all(found[path].identical(whole[path]) for path in whole)
            try:
                damage = [finding.key or finding.where for finding in verify_store(store).damage]
            except StoreError as error:
                damage = [str(error)]
        assert any(name in place for place in damage), (name, damage)
    assert refused > len(names) // 4


@pytest.mark.parametrize("mode", ["auto", None])
def test_a_mapped_and_a_checked_read_refuse_them_alike(
    tmp_path: Path, small: Path, mode: str | None
) -> None:
    names = [n for n in files_of(small) if "/c/" in n and n.split("/c/")[0].endswith(("x", "min"))]
    assert names
    store = tmp_path / "s.zarr"
    shutil.copytree(small, store)
    for name, stranger in ((n, s) for n in names for s in STRANGERS):
        group = LATENTS if name.startswith(LATENTS) else POOLED
        with within(60), replaced(stranger, store / name), pytest.raises(StoreError):
            open_store(store, chunks=mode)[group].load()  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", [LATENTS, POOLED, f"{POOLED}/avg_min", f"{POOLED}/avg_min/c"])
def test_links_inside_a_store_are_not_followed(
    tmp_path: Path, small: Path, taq: Runner, folder: str
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(small, store)
    (store / folder).rename(tmp_path / "elsewhere")
    (store / folder).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "elsewhere").rglob("*") if p.is_file()}
    group = LATENTS if folder == LATENTS else POOLED
    done = taq("query", store, group, "--reduce", "step=mean")
    assert done.code == 1, done.out
    assert "link" in done.err
    assert taq("verify", store).code == 1
    with pytest.raises(StoreError, match="link"):
        LocalBackend(store).write(f"{folder}/y", [b"y"])
    taq("repair", store)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "elsewhere").rglob("*") if p.is_file()}
    assert before == after


def test_a_store_may_itself_be_reached_through_a_link(tmp_path: Path, small: Path) -> None:
    (tmp_path / "by-link.zarr").symlink_to(small, target_is_directory=True)
    read_all(tmp_path / "by-link.zarr")
    assert verify_store(tmp_path / "by-link.zarr").damage == ()


@pytest.mark.parametrize("stranger", STRANGERS)
def test_nothing_is_written_over_them(tmp_path: Path, stranger: str) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "file").write_bytes(b"before")
    put(stranger, tmp_path / "s" / "file")
    with within(10), pytest.raises(StoreError, match="plain files"):
        LocalBackend(tmp_path / "s").write("file", [b"after"])
    assert (tmp_path / "s" / "file-elsewhere").read_bytes() == b"before"


FOREIGN = (".DS_Store", "Thumbs.db", "x~", ".zarr.json.swp", "desktop.ini", "#x#", "._x")


def test_foreign_names_anywhere_change_nothing(tmp_path: Path, small: Path, taq: Runner) -> None:
    store, again = tmp_path / "s.zarr", tmp_path / "again.zarr"
    shutil.copytree(small, store)
    folders = [store, *(p for p in store.rglob("*") if p.is_dir())]
    assert len(folders) > 20
    questions = [
        ["info", store, "--json"],
        ["query", store, LATENTS, "--csv"],
        ["query", store, POOLED, "avg_min", "--csv"],
    ]
    before = [taq(*question).out for question in questions]
    for folder in folders:
        for name in FOREIGN:
            assert is_foreign(name)
            (folder / name).write_bytes(b"\0")
        (folder / "an empty folder").mkdir()
    assert [taq(*question).out for question in questions][1:] == before[1:]
    for question in questions:
        done = taq(*question)
        assert (done.code, done.err) == (0, "")
    assert taq("verify", store).code == 0
    assert taq("repair", store).out == "whole: nothing to mend\n"
    with create_store(store) as writer:
        assert writer.node(LATENTS) is not None
    assert taq("merge", store, small, again, "--duplicates", "keep", "--renumber").code == 0
    assert taq("verify", store).code == 0
    for folder in folders:
        assert all((folder / name).exists() for name in FOREIGN), "not ours to remove"


def test_a_folder_of_foreign_names_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / ".DS_Store").write_bytes(b"\0")
    with create_store(tmp_path / "s.zarr"):
        pass
    assert verify_store(tmp_path / "s.zarr").damage == ()

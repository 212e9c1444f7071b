"""Repair, as a user meets it: what stands in the way, what cannot be done, stores in memory."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path

import fsspec
import pytest

from campaign.stores import files_of, one_kind, values_of, write
from support.cli_runner import Runner
from support.hostile import HOSTILE, Hostile, make_hostile
from taqstore import open_store
from taqstore.errors import NewerError
from taqstore.items.closing import record_files
from taqstore.items.flags import read_group
from taqstore.place.local_backend import LocalBackend
from taqstore.upkeep.repair import repair_store
from taqstore.upkeep.verify import verify_store

SHARD = "latents/x/c/1/0/0/0/0"
STRANGERS: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to("/etc/hostname"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}
PLACES = (
    SHARD,
    "latents/zarr.json",
    "latents/x/zarr.json",
    "latents/seed/c/0",
    "latents/written/c.0",
    "latents/items/record/c/0/0",
    "latents/items/coordinates/c/0",
    "blocks/zarr.json",
    "provenance/json/c/0",
    "provenance/zarr.json",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    write(path, one_kind())
    return path


def mended(path: Path, whole: Path) -> None:
    """Repair, then what a writer with --resume does, leave the whole store."""
    said = repair_store(path, dry_run=True)
    before = files_of(path)
    assert files_of(path) == before
    done = repair_store(path)
    assert done == said
    assert all(step.done for step in done), done
    assert verify_store(path).damage == ()
    write(path, one_kind())
    assert verify_store(path).damage == ()
    found = values_of(open_store(path))
    assert all(found[k].tolist() == v.tolist() for k, v in values_of(open_store(whole)).items())


# Each in place of some file, and every place taken by some.
@pytest.mark.parametrize(("place", "stranger"), [*zip(PLACES, cycle(STRANGERS))])
def test_what_stands_in_place_of_a_file_is_set_aside(
    whole: Path, tmp_path: Path, place: str, stranger: str
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    (path / place).unlink()
    STRANGERS[stranger](path / place)
    assert any(place in (f.key, f.where) for f in verify_store(path).damage)
    mended(path, whole)
    (aside,) = (tmp_path / ".s.zarr.damaged").iterdir()
    assert aside.name.startswith(place.replace("/", "@"))


@pytest.mark.parametrize("folder", ["latents", "latents/x", "latents/x/c/1", "blocks/img"])
def test_a_file_in_place_of_a_folder_is_set_aside(whole: Path, tmp_path: Path, folder: str) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    shutil.rmtree(path / folder)
    (path / folder).write_text("in the way")
    mended(path, whole)


def test_an_item_whose_closed_record_is_gone_loses_its_flag(whole: Path, tmp_path: Path) -> None:
    """As a power cut leaves it while flags are made again: the mask still says that it is there."""
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    items = read_group(LocalBackend(path), "latents")
    assert items is not None
    ((key, raw),) = record_files(items, {(1,): bytes(items.layout.record_bytes)}).items()
    Hostile(path).file("latents", key, raw)
    (found,) = verify_store(path).damage
    assert "damaged record of item 1" in found.what
    mended(path, whole)
    assert not (tmp_path / ".s.zarr.damaged").exists()


def test_all_that_can_be_mended_is(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    (path / "latents/seed/c/0").unlink()
    os.mkfifo(path / "latents/seed/c/0")
    for name in ("blocks/img/step/c/0", "blocks/img/x/c/0/0/0/0/0/0", "provenance/json/c/0"):
        (path / name).write_bytes(b"")
    mended(path, whole)


def test_what_cannot_be_done_does_not_stop_the_rest(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    (path / "blocks/img/x/zarr.json").unlink()
    (path / "latents/x/zarr.json").unlink()
    write_files = LocalBackend.write_all

    def refusing(self: LocalBackend, files: Mapping[str, bytes]) -> None:
        if any(key.startswith("blocks/") for key in files):
            raise OSError(5, "Input/output error")
        write_files(self, files)

    monkeypatch.setattr(LocalBackend, "write_all", refusing)
    first, second = repair_store(path)
    assert (first.where, first.done) == ("blocks/img/x/zarr.json", False)
    assert "Input/output error" in first.what
    assert (second.where, second.done) == ("latents/x/zarr.json", True)
    monkeypatch.undo()
    mended(path, whole)


@pytest.fixture
def memory() -> Iterator[tuple[str, fsspec.AbstractFileSystem, str]]:
    place = uuid.uuid4().hex
    url = f"memory://{place}/s.zarr"
    write(url, one_kind())
    fs = fsspec.filesystem("memory")
    yield url, fs, f"/{place}/s.zarr"
    fs.rm(f"/{place}", recursive=True)


@pytest.mark.parametrize(("place", "way"), [*zip(PLACES, cycle(["missing", "empty", "empty"]))])
def test_stores_in_memory_are_mended(
    memory: tuple[str, fsspec.AbstractFileSystem, str], place: str, way: str
) -> None:
    url, fs, base = memory
    expected = values_of(open_store(url))
    if way == "missing":
        fs.rm(f"{base}/{place}")
    else:
        fs.pipe(f"{base}/{place}", b"")
    assert verify_store(url).damage
    said = repair_store(url, dry_run=True)
    assert repair_store(url) == said
    assert all(step.done for step in said)
    write(url, one_kind())
    assert verify_store(url).damage == ()
    found = values_of(open_store(url))
    assert all(found[k].tolist() == v.tolist() for k, v in expected.items())


def test_the_command_says_what_it_does(taq: Runner, whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    assert taq("repair", path).out == "whole: nothing to mend\n"
    (path / SHARD).unlink()
    dry = taq("repair", path, "--dry-run")
    assert (dry.code, "nothing was changed" in dry.err) == (0, True)
    assert taq("repair", path).out == dry.out
    assert "latents item 1: its flag is taken away; --resume writes it again" in dry.out
    (path / "latents/seed/c/0").unlink()
    (path / "latents/items/coordinates/c/0").unlink()
    lost = taq("repair", path)
    assert (lost.code, "lost  latents/seed/c/0" in lost.out) == (1, True)


# Without the two largest documents, which take seconds to parse.
@pytest.mark.parametrize("lie", sorted(HOSTILE.keys() - {"a root of one long list", "10^5 arrays"}))
def test_what_verify_names_is_never_called_whole(tmp_path: Path, lie: str) -> None:
    path = make_hostile(tmp_path / "s.zarr", lie)
    try:
        damage = verify_store(path).damage
    except NewerError:
        with pytest.raises(NewerError):
            repair_store(path)
        return
    steps = repair_store(path)
    assert bool(steps) == bool(damage)
    left = {finding.where for finding in verify_store(path).damage}
    assert left <= {step.where for step in steps if not step.done}
    assert all("see taqstore verify" not in step.what for step in steps)

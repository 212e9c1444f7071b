"""The store of format 1 that is kept for ever: read as it is, refused to writers, upgraded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from support.cli_runner import Runner
from support.format1 import unpack
from support.stopped import stopped_before_each
from taqstore import create_store, open_store
from taqstore.errors import StoreError
from taqstore.testing.damage import edit_json, flip_bit
from taqstore.upkeep.repair import repair_store
from taqstore.upkeep.upgrade import upgrade_store
from taqstore.upkeep.verify import verify_store

DATA = Path(__file__).parents[1] / "data"
# What the version that made it read: dtype, shape and sha256 of every variable.
KNOWN = json.loads((DATA / "format1.json").read_text(encoding="utf-8"))
SHARD = "latents/x/c/1/0/0/0/0"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("format1"))


@pytest.fixture
def path(unpacked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked, tmp_path / "s.zarr"))


def described(values: Any) -> list[Any]:
    array = np.asarray(values)
    text = array.dtype.kind in "OTU"
    raw = repr(array.tolist()).encode() if text else np.ascontiguousarray(array).tobytes()
    kind = "str" if text else array.dtype.str
    return [kind, list(array.shape), hashlib.sha256(raw).hexdigest()[:16]]


def check_values(path: Path, **ways: Any) -> None:
    """Everything is what the version that made the store read."""
    store = open_store(path, incomplete=True, **ways)
    assert list(store) == KNOWN["groups"]
    assert len(store.provenance) == KNOWN["records"]
    found = {
        f"{group}/{name}": described(variable.values)
        for group in store
        for name, variable in store[group].variables.items()
    }
    assert found == KNOWN["variables"]


@pytest.mark.parametrize("chunks", ["auto", None])
def test_it_is_read_as_it_is(unpacked: Path, chunks: Any) -> None:
    check_values(unpacked, chunks=chunks)
    assert open_store(unpacked).root.format == 1
    assert open_store(unpacked)["latents"].image.values.tolist() == [0, 1]


def test_commands_read_it(unpacked: Path, taq: Runner, tmp_path: Path) -> None:
    shown = taq("verify", unpacked)
    assert shown.code == 0, shown.out
    assert shown.out.startswith("whole: 21 groups")
    assert taq("info", unpacked).out.splitlines()[1].startswith("format  1")
    assert taq("query", unpacked, "latents", "x", "-o", tmp_path / "x.csv").code == 0
    assert taq("export", "quant-config", unpacked, "-o", tmp_path / "q.json").code == 0


def test_damage_in_it_is_named(path: Path) -> None:
    flip_bit(path / SHARD)
    (path / "latents/x/c/0/0/0/0/0").unlink()
    found = [f"{finding.where} {finding.what}" for finding in verify_store(path).damage]
    assert len(found) == 2
    assert any("missing" in line and "0/0/0/0/0" in line for line in found)
    assert any("checksum" in line and "1/0/0/0/0" in line for line in found)


def test_writers_are_refused(path: Path, taq: Runner) -> None:
    with pytest.raises(StoreError, match=rf"format 1 is read.*taqstore upgrade {path}"):
        create_store(path)
    shown = taq("repair", path)
    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert "upgrade" in shown.err


def test_it_is_upgraded_in_place(path: Path, unpacked: Path, taq: Runner) -> None:
    shown = taq("upgrade", path)
    assert shown.code == 0
    assert shown.out.splitlines() == [*KNOWN["groups"], "21 groups brought to format 2"]
    report = verify_store(path)
    assert report.damage == ()
    assert "1 of 3 items not written yet" in {note.what for note in report.notes}
    check_values(path)
    store, old = open_store(path), open_store(unpacked)
    assert (store.root.format, store.root.uuid) == (2, old.root.uuid)
    assert store.provenance == old.provenance
    assert not list(path.glob("**/written/c"))  # flags of format 1
    assert taq("upgrade", path).out == "0 groups brought to format 2\n"


def test_others_read_it_afterwards(path: Path, unpacked: Path) -> None:
    upgrade_store(path)
    ours = zarr.open_group(path, mode="r", use_consolidated=False)
    for name, array in zarr.open_group(unpacked, mode="r", use_consolidated=False).arrays():
        np.testing.assert_array_equal(ours[name][...], array[...])  # type: ignore[index]
    assert ours["latents/written"][...].tolist() == [True, True, False]  # type: ignore[index]


def test_items_with_a_damaged_file_lose_their_flag(path: Path) -> None:
    flip_bit(path / SHARD)
    done = upgrade_store(path)
    assert len(done.notes) == 1
    assert done.notes[0].startswith(f"latents item 1 loses its flag: {SHARD.partition('/')[2]}")
    assert verify_store(path).damage == ()
    assert open_store(path)["latents"].image.values.tolist() == [0]


def smaller(path: Path) -> Path:
    """Some of its groups, for trials by the hundred."""
    for found in path.iterdir():
        if found.name not in ("zarr.json", "provenance", "latents", "samples", "reconstruction"):
            shutil.rmtree(found)
    edit_json(path / "zarr.json", lambda root: root.pop("consolidated_metadata"))
    return path


def test_stopped_before_every_write_it_goes_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is flagged reads as before at every moment, and the end is always the same."""
    base = smaller(path)
    names = {name: sums for name, sums in KNOWN["variables"].items() if name.startswith("latents")}
    work = Path(shutil.copytree(base, tmp_path / "work"))
    for stop in stopped_before_each(lambda: upgrade_store(work), monkeypatch):
        dataset = open_store(work, incomplete=True)["latents"]
        found = {f"latents/{name}": described(v.values) for name, v in dataset.variables.items()}
        assert found == names, stop
        assert verify_store(work).damage == (), stop
        upgrade_store(work)
        assert verify_store(work).damage == (), stop
        assert open_store(work).root.format == 2
        shutil.rmtree(work)
        shutil.copytree(base, work)
    assert stop > 20


def test_a_document_that_only_the_copy_has_is_put_back(path: Path) -> None:
    for name in ("latents/zarr.json", "latents/seed/zarr.json", "blocks/zarr.json"):
        (path / name).unlink()
    upgrade_store(path)
    assert verify_store(path).damage == ()
    check_values(path)


@pytest.mark.parametrize("name", ["sigma", "step", "image"])
def test_lost_coordinates_are_named_and_nothing_is_changed(path: Path, name: str) -> None:
    (path / f"latents/{name}/c/0").unlink()
    before = files(path)
    assert f"latents/{name}/c/0" in [f.where for f in verify_store(path).damage]
    with pytest.raises(StoreError, match=f"latents/{name}/c/0: missing"):
        upgrade_store(path)
    assert files(path) == before


def test_coordinates_that_may_be_lost_are_told(path: Path) -> None:
    """Format 1 left out what was 0 throughout."""
    (path / "latents/seed/c/0").unlink()
    told = "latents/seed/c/0"
    assert any(note.where == told for note in verify_store(path).notes)
    assert any(note.startswith(told) for note in upgrade_store(path).notes)


def test_an_undocumented_coordinate_is_refused_where_there_is_no_copy(path: Path) -> None:
    edit_json(path / "zarr.json", lambda root: root.pop("consolidated_metadata"))
    (path / "latents/seed/zarr.json").unlink()
    before = files(path)
    with pytest.raises(StoreError, match=r"latents/seed/zarr\.json: missing"):
        upgrade_store(path)
    assert files(path) == before


def test_a_root_is_made_again_in_the_present_format(path: Path) -> None:
    upgrade_store(path)
    uuid = open_store(path).root.uuid
    (path / "zarr.json").unlink()
    assert all(step.done for step in repair_store(path))
    assert (open_store(path).root.format, open_store(path).root.uuid) == (2, uuid)
    check_values(path)


def files(path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}

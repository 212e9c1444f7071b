"""Every kind of damage really is there, and nothing else is."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from taqstore.testing import RunShape, damage, make_run_folder

SHAPE = RunShape(images=3, steps=3, blocks=1, hidden=4, image_tokens=4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path / "run", shape=SHAPE, parts=("latents",))


@pytest.fixture
def sample(run: Path) -> Path:
    return run / "samples" / "0001_002.npz"


def test_truncated_file_has_no_directory(sample: Path) -> None:
    size = sample.stat().st_size
    damage.truncate(sample, keep=0.7)
    assert sample.stat().st_size == int(size * 0.7)
    assert not zipfile.is_zipfile(sample)


def test_flipped_bit_is_one_bit(sample: Path) -> None:
    before = np.frombuffer(sample.read_bytes(), np.uint8)
    damage.flip_bit(sample, offset=-30)
    after = np.frombuffer(sample.read_bytes(), np.uint8)
    assert np.bitwise_count(before ^ after).sum() == 1
    assert (before != after)[-30]


def test_flipped_bit_in_a_member_breaks_that_member_only(sample: Path) -> None:
    damage.flip_bit(sample, member="x")
    with np.load(sample) as archive:
        assert archive["image_id"] == 1
        with pytest.raises((zipfile.BadZipFile, zlib.error, ValueError)):
            archive["x"]


def test_renamed_key_keeps_its_data(sample: Path) -> None:
    before = damage.read_npz(sample)
    damage.rename_key(sample, "x", "../evil")
    after = damage.read_npz(sample)
    assert list(after) == ["../evil", *list(before)[1:]]
    assert np.array_equal(after["../evil"], before["x"])


def test_dropped_replaced_and_poisoned_members(sample: Path) -> None:
    damage.drop_key(sample, "sigma")
    damage.replace_array(sample, "timestep", np.zeros(3, "f8"))
    damage.poison(sample, "x", value=float("inf"), index=5)
    members = damage.read_npz(sample)
    assert "sigma" not in members
    assert members["timestep"].shape == (3,)
    assert np.flatnonzero(~np.isfinite(members["x"])).tolist() == [5]


def test_pickled_member_springs_only_when_unpickled(sample: Path, tmp_path: Path) -> None:
    marker = tmp_path / "sprung"
    damage.pickled_npz(sample, key="x", marker=marker)
    with np.load(sample) as archive, pytest.raises(ValueError, match="allow_pickle"):
        archive["x"]
    assert not marker.exists()
    with np.load(sample, allow_pickle=True) as archive:
        archive["x"]
    assert marker.exists()


def test_small_file_claims_terabytes(sample: Path) -> None:
    damage.claim_terabytes(sample, key="x")
    assert sample.stat().st_size < 10_000
    with zipfile.ZipFile(sample) as archive:
        assert archive.getinfo("x.npy").file_size > 8 << 40
        with archive.open("x.npy") as member:
            assert np.lib.format.read_magic(member) == (1, 0)
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    assert shape[0] * dtype.itemsize == 8 << 40
    with np.load(sample) as archive:
        assert archive["image_id"] == 1


def test_damaged_run_folders(run: Path) -> None:
    assert not damage.drop_step(run, image=2, step=1).exists()
    assert len(list((run / "samples").iterdir())) == 3 * 4 - 1

    def ids() -> list[int]:
        rows = json.loads((run / "manifest.json").read_text())["images"]
        return [row["image_id"] for row in rows]

    damage.rotate_manifest(run)
    assert ids() == [1, 2, 0]
    damage.duplicate_image(run, image=2, of=0)
    assert sorted(ids()) == [0, 0, 1]
    damage.hole_in_manifest(run, image=1)
    assert ids() == [0, 0]


def test_edited_json(run: Path) -> None:
    damage.edit_json(run / "manifest.json", lambda document: document.update(num_steps=99))
    assert json.loads((run / "manifest.json").read_text())["num_steps"] == 99

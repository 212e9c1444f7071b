"""verify finds every kind of damage and names it; whole stores pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.builders import latent, latents_template, write_latents, write_pooled
from taqstore import create_store, open_store
from taqstore.errors import StoreError
from taqstore.testing.damage import edit_json
from taqstore.upkeep.verify import verify_store

FC2 = "pooled/timestep_stats/mlp.fc2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three images, the first flagged alone as a killed writer leaves it, and a pooled site."""
    write_latents(tmp_path / "s.zarr", [3, 1, 4, 9], only=[1, 4])
    write_pooled(tmp_path / "s.zarr")
    group = create_store(tmp_path / "s.zarr").group(latents_template([3, 1, 4, 9]))
    group.put("x", (0, 0, 0, 0, 0), latent(3))
    group.commit([(0,)])
    return tmp_path / "s.zarr"


def test_a_whole_store_passes(path: Path) -> None:
    report = verify_store(path)
    assert report.damage == ()
    assert [(n.where, n.what) for n in report.notes] == [
        ("latents", "1 of 4 items not written yet")
    ]
    assert report.groups == 2
    # x of 3 images, 3 shards each of the four pooled arrays but the unsharded rollup's 3 chunks,
    # 6 + 5 coordinates and their copies, closed flags and records of both groups
    assert report.chunks == 3 + 12 + (6 + 1) + (5 + 1) + 4


def test_memory_stores_are_verified_too() -> None:
    write_latents("memory://verify-test/s.zarr", [3, 1])
    assert verify_store("memory://verify-test/s.zarr").damage == ()


def _flip(file: Path, position: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[position] ^= 2
    file.write_bytes(raw)


def _edit(file: Path) -> None:
    """JSON stays JSON and says something else."""
    edit_json(file, lambda document: document["attributes"].update(cfg_scale=3.5))


def _finished(path: Path) -> Path:
    """A writer that ends leaves a second copy of all metadata."""
    with create_store(path):
        return path


def _exchange(one: Path, other: Path) -> None:
    """Two files of one size: every checksum still fits."""
    first, second = one.read_bytes(), other.read_bytes()
    assert first != second
    assert len(first) == len(second)
    one.write_bytes(second)
    other.write_bytes(first)


DAMAGE: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "bit in a mapped shard": (
        lambda p: _flip(p / "latents/x/c/1/0/0/0/0", 500),
        ["latents/x/c/1/0/0/0/0 (item 1)"],
        "checksum of chunk 2",
    ),
    "bit in a shard index": (
        lambda p: _flip(p / "latents/x/c/2/0/0/0/0", -6),
        ["latents/x/c/2/0/0/0/0 (item 2)"],
        "index",
    ),
    "bit in a compressed shard": (
        lambda p: _flip(p / FC2 / "hist_counts/c/0/1/0", 9),
        [f"{FC2}/hist_counts/c/0/1/0 (item 0)"],
        "checksum",
    ),
    "bit in a rollup": (
        lambda p: _flip(p / FC2 / "tensor_absmax/c/0/2", 3),
        [f"{FC2}/tensor_absmax/c/0/2 (item 0)"],
        "checksum",
    ),
    "bit in a coordinate": (
        lambda p: _flip(p / "latents/sigma/c/0", 0),
        ["latents/sigma/c/0"],
        "not what was written",
    ),
    "bit in the closed flags": (
        lambda p: _flip(p / "latents/written/c.0", 0),
        ["latents/written/c.0"],
        "not what was written",
    ),
    "bit in the closed records": (
        lambda p: _flip(p / "latents/items/record/c/0/0", 9),
        ["latents/items/record/c/0/0"],
        "not what was written",
    ),
    "bit in the flag of one item": (
        lambda p: _flip(p / "latents/items/commit/c.0.0", 5),
        ["latents/items/commit/c.0.0 (item 0)"],
        "damaged completion flag",
    ),
    "truncated shard": (
        lambda p: (p / FC2 / "avg_min/c/0/0/0").write_bytes(b"short"),
        [f"{FC2}/avg_min/c/0/0/0 (item 0)"],
        "5 bytes",
    ),
    "missing shard": (
        lambda p: (p / FC2 / "avg_max/c/0/2/0").unlink(),
        [f"{FC2}/avg_max/c/0/2/0 (item 0)"],
        "missing, though its item is flagged",
    ),
    "exchanged shards": (
        lambda p: _exchange(p / "latents/x/c/1/0/0/0/0", p / "latents/x/c/2/0/0/0/0"),
        ["latents/x/c/1/0/0/0/0 (item 1)", "latents/x/c/2/0/0/0/0 (item 2)"],
        "not the file that was written here",
    ),
    "attributes of a group": (
        lambda p: _edit(p / FC2 / "zarr.json"),
        [f"{FC2}/zarr.json"],
        "its seal does not match",
    ),
    "attributes of an array": (
        lambda p: _edit(_finished(p) / FC2 / "avg_min/zarr.json"),
        [f"{FC2}/avg_min/zarr.json"],
        "not what was written",
    ),
    "attributes of the root": (
        lambda p: _edit(p / "zarr.json"),
        ["zarr.json"],
        "its seal does not match",
    ),
    "a group that is gone": (
        lambda p: shutil.rmtree(p / FC2),
        [FC2],
        "missing, though the root lists it",
    ),
    "a group's document that is gone": (
        lambda p: (p / "latents/zarr.json").unlink(),
        ["latents/zarr.json"],
        "missing",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(path: Path, kind: str) -> None:
    harm, where, what = DAMAGE[kind]
    harm(path)
    found = verify_store(path).damage
    assert [finding.where for finding in found] == where
    assert all(what in finding.what for finding in found)


def test_remote_damage_is_found(tmp_path: Path) -> None:
    import fsspec

    url = "memory://verify-damage/s.zarr"
    write_latents(url, [3])
    fs = fsspec.filesystem("memory")
    key = "/verify-damage/s.zarr/latents/x/c/0/0/0/0/0"
    raw = bytearray(fs.cat(key))
    raw[50] ^= 1
    fs.pipe(key, bytes(raw))
    assert [f.where for f in verify_store(url).damage] == ["latents/x/c/0/0/0/0/0 (item 0)"]
    fs.rm(key)
    assert "missing" in verify_store(url).damage[0].what


def test_data_without_a_flag_is_no_damage(path: Path) -> None:
    with create_store(path) as writer:
        writer.group(latents_template([3, 1, 4, 9])).put("x", (3, 0, 0, 0, 0), latent(9))
    (path / "latents/x/c/7.partial").write_bytes(b"half")
    report = verify_store(path)
    assert report.damage == ()
    assert "half-written file of a killed command" in report.notes[-1].what
    assert report.notes[-1].where == str(path / "latents/x/c/7.partial")


def test_all_zero_data_is_whole_everywhere(tmp_path: Path) -> None:
    """Zarr leaves chunks of zeros out unless told otherwise each time an array is opened."""
    from support.builders import pooled_template

    template = pooled_template()
    for address in (tmp_path / "s.zarr", "memory://verify-zeros/s.zarr"):
        with create_store(address) as writer:
            group = writer.group(template)
            for array in template.arrays:
                for layer in range(0, 5, 2):
                    start = tuple(layer if d == "layer" else 0 for d in array.dims)
                    shape = list(template.shape(array))
                    shape[array.dims.index("layer")] = min(2, 5 - layer)
                    group.put(array.name, start, np.zeros(shape, array.dtype))
            group.commit([(0,), (1,), (2,)])
        assert verify_store(address).damage == ()
        assert not open_store(address)[FC2].hist_counts.values.any()


def test_a_file_larger_than_memory_is_named_wherever_it_lies(path: Path) -> None:
    """Sparse, so that it takes no room on the disk; most files are read whole."""
    for file in [file for file in path.rglob("*") if file.is_file()]:
        whole, key = file.read_bytes(), str(file.relative_to(path))
        try:
            os.truncate(file, 1 << 43)
        except OSError:
            pytest.skip("this disk has no such files")
        try:
            named = [str(finding) for finding in verify_store(path).damage]
        except StoreError as error:
            named = [str(error)]
        assert any(key in text for text in named), (key, named)
        file.write_bytes(whole)

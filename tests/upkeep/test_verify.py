"""verify finds every kind of damage and names it; whole stores pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from support.builders import latent, latents_template, write_latents, write_pooled
from taqstore import create_store
from taqstore.store.shards import write_chunk
from taqstore.upkeep.verify import verify_store

FC2 = "pooled/timestep_stats/mlp.fc2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_latents(tmp_path / "s.zarr", [3, 1, 4], only=[3, 4])
    write_pooled(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def test_a_whole_store_passes(path: Path) -> None:
    report = verify_store(path)
    assert report.damage == ()
    assert [(n.where, n.what) for n in report.notes] == [
        ("latents", "1 of 3 items not written yet")
    ]
    assert report.groups == 2
    # x of 2 images, 3 shards each of the four pooled arrays but the unsharded rollup's 3 chunks,
    # 6 + 5 coordinates
    assert report.chunks == 2 + 12 + 6 + 5


def test_memory_stores_are_verified_too() -> None:
    write_latents("memory://verify-test/s.zarr", [3, 1])
    assert verify_store("memory://verify-test/s.zarr").damage == ()


def _flip(file: Path, position: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[position] ^= 2
    file.write_bytes(raw)


def _bad_layer(path: Path) -> None:
    group = zarr.open_group(path / FC2, mode="r+")
    group["layer"][...] = np.array(["mm0.img", "mm0.img", "x", "mm1.txt", "mm2.img"], dtype=object)  # type: ignore[index]


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "bit in a mapped shard": (
        lambda p: _flip(p / "latents/x/c/0/0/0/0/0", 500),
        "latents/x chunk 0/0/0/0/0",
        "checksum of chunk 2",
    ),
    "bit in a shard index": (
        lambda p: _flip(p / "latents/x/c/2/0/0/0/0", -6),
        "latents/x chunk 2/0/0/0/0",
        "index",
    ),
    "bit in a compressed shard": (
        lambda p: _flip(p / FC2 / "hist_counts/c/0/1/0", 9),
        f"{FC2}/hist_counts chunk 0/1/0",
        "checksum",
    ),
    "bit in a rollup": (
        lambda p: _flip(p / FC2 / "tensor_absmax/c/0/2", 3),
        f"{FC2}/tensor_absmax chunk 0/2",
        "checksum",
    ),
    "bit in a coordinate": (
        lambda p: _flip(p / "latents/sigma/c/0", 0),
        "latents/sigma",
        "damaged",
    ),
    "bit in a mask": (lambda p: _flip(p / "latents/written/c/0", 0), "latents/written", "damaged"),
    "truncated shard": (
        lambda p: (p / FC2 / "avg_min/c/0/0/0").write_bytes(b"short"),
        f"{FC2}/avg_min chunk 0/0/0",
        "5 bytes",
    ),
    "missing shard": (
        lambda p: (p / FC2 / "avg_max/c/0/2/0").unlink(),
        f"{FC2}/avg_max chunk 0/2/0",
        "missing",
    ),
    "repeated and unknown layers": (_bad_layer, f"{FC2}/layer", "repeat"),
    "consolidated metadata": (
        lambda p: zarr.open_group(p / FC2, mode="r+")["avg_min"].update_attributes({"a": 1}),  # type: ignore[union-attr]
        FC2,
        "consolidated metadata is out of date",
    ),
    "shape": (
        lambda p: zarr.open_group(p / FC2, mode="r+")["sigma"].resize((2,)),  # type: ignore[union-attr]
        f"{FC2}/sigma",
        "2 along step, expected 3",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(path: Path, kind: str) -> None:
    harm, where, what = DAMAGE[kind]
    harm(path)
    found = verify_store(path).damage
    assert found[0].where == where
    assert what in found[0].what
    assert len(found) <= 2


def test_remote_damage_is_found(tmp_path: Path) -> None:
    import fsspec

    url = "memory://verify-damage/s.zarr"
    write_latents(url, [3])
    fs = fsspec.filesystem("memory")
    key = "/verify-damage/s.zarr/latents/x/c/0/0/0/0/0"
    raw = bytearray(fs.cat(key))
    raw[50] ^= 1
    fs.pipe(key, bytes(raw))
    assert [f.where for f in verify_store(url).damage] == ["latents/x chunk 0/0/0/0/0"]
    fs.rm(key)
    assert "missing" in verify_store(url).damage[0].what


def test_data_without_a_flag_is_no_damage(path: Path) -> None:
    with create_store(path) as writer:
        writer.group(latents_template([3, 1, 4])).put("x", (1, 0, 0, 0, 0), latent(1))
    (path / "latents/x/c/7.partial").write_bytes(b"half")
    report = verify_store(path)
    assert report.damage == ()
    assert "killed writer" in report.notes[-1].what


def test_a_flag_without_data_is_damage(path: Path) -> None:
    write_chunk(path / "latents/written/c/1", np.array([True]))
    assert "missing, though its item is flagged" in verify_store(path).damage[0].what

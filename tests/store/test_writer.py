"""Template -> aligned writes -> mask; growth; locks; refusals."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from support.builders import (
    LAYERS,
    latent,
    latents_template,
    pooled_template,
    write_latents,
    write_pooled,
)
from support.stopped import stopped_before_each
from taqstore import create_store, open_store
from taqstore.errors import LayoutError, StoreError
from taqstore.layout.template import rows_per_shard
from taqstore.names import FORMAT_VERSION
from taqstore.place.disk import disk_errors
from taqstore.place.location import Location
from taqstore.testing.damage import edit_json


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [3, 0, 9])
    dataset = open_store(tmp_path / "s.zarr")["latents"]
    assert dataset.image.values.tolist() == [3, 0, 9]
    for image in (3, 0, 9):
        assert dataset.x.sel(image=image).values.tobytes() == latent(image).tobytes()
    assert dataset.timestep.dtype == np.float16
    assert dataset.prompt.values.tolist() == ["prompt 3 é", "prompt 0 é", "prompt 9 é"]


def test_edge_shards_and_compressed_arrays_round_trip(tmp_path: Path) -> None:
    values = write_pooled(tmp_path / "s.zarr")
    for chunks in ("auto", None):
        dataset = open_store(tmp_path / "s.zarr", chunks=chunks)["pooled/timestep_stats/mlp.fc2"]
        for name, expected in values.items():
            assert dataset[name].dtype == expected.dtype
            assert dataset[name].values.tobytes() == expected.tobytes(), name


def test_chunks_can_be_streamed(tmp_path: Path) -> None:
    whole = latent(1)
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(latents_template([1]))
        group.put("x", (0, 0, 0, 0, 0), (whole[:, i : i + 1] for i in range(whole.shape[1])))
        group.commit([(0,)])
    assert open_store(tmp_path / "s.zarr")["latents"].x.values.tobytes() == whole.tobytes()


def test_unflagged_items_are_not_shown(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [4, 5, 6], only=[5])
    with create_store(tmp_path / "s.zarr") as writer:  # data of 6 is there, its flag is not
        writer.group(latents_template([4, 5, 6])).put("x", (2, 0, 0, 0, 0), latent(6))
    assert open_store(tmp_path / "s.zarr")["latents"].image.values.tolist() == [5]
    everything = open_store(tmp_path / "s.zarr", incomplete=True)["latents"]
    assert everything.written.values.tolist() == [False, True, False]
    assert np.isnan(everything.x.sel(image=6)).all()


def test_growth_keeps_old_images_and_matches_by_id(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [3, 1])
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(latents_template([7, 1, 2]))
        assert group.written().tolist() == [False, True, False]
        group.put("x", (0, 0, 0, 0, 0), latent(7))
        group.commit([(0,)])
    dataset = open_store(tmp_path / "s.zarr")["latents"]
    assert dataset.image.values.tolist() == [3, 1, 7]
    for image in (3, 1, 7):
        assert dataset.x.sel(image=image).values.tobytes() == latent(image).tobytes()
    assert dataset.prompt.sel(image=7).item() == "prompt 7 é"


def cut_short(path: Path, ids: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Open the group for these images, stopped before every write to the store in turn."""
    return stopped_before_each(lambda: create_store(path).group(latents_template(ids)), monkeypatch)


def test_growth_cut_short_reads_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_latents(tmp_path / "s.zarr", [3, 1])
    for stop in cut_short(tmp_path / "s.zarr", [3, 1, 8, 9, 7], monkeypatch):
        dataset = open_store(tmp_path / "s.zarr")["latents"]
        assert dataset.image.values.tolist() == [3, 1], stop
        assert dataset.x.values.tobytes() == latent(3).tobytes() + latent(1).tobytes()
        shutil.copytree(tmp_path / "s.zarr", tmp_path / f"{stop}.zarr")
        write_latents(tmp_path / f"{stop}.zarr", [3, 1, 8], only=[8])
        grown = open_store(tmp_path / f"{stop}.zarr")["latents"]
        assert grown.image.values.tolist() == [3, 1, 8]
    assert stop > 4


def test_an_unfinished_group_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stop in cut_short(tmp_path / "s.zarr", [3], monkeypatch):
        shutil.copytree(tmp_path / "s.zarr", tmp_path / f"{stop}.zarr")
        if stop > 0:
            assert list(open_store(tmp_path / "s.zarr")) == []
        write_latents(tmp_path / f"{stop}.zarr", [3])
        assert open_store(tmp_path / f"{stop}.zarr")["latents"].image.values.tolist() == [3]
    assert stop > 8


def test_a_group_that_lost_its_document_is_no_unfinished_one(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [3])
    shard = tmp_path / "s.zarr/latents/x/c/0/0/0/0/0"
    (tmp_path / "s.zarr/latents/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"document is missing, and its data are not.*repair"):
        write_latents(tmp_path / "s.zarr", [3])
    assert shard.exists()


def test_differences_are_named(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [3, 1])
    with create_store(tmp_path / "s.zarr") as writer:
        with pytest.raises(LayoutError, match=r"x shape .*'step': 5.*'step': 4.*--force"):
            writer.group(latents_template([3], steps=4))
        with pytest.raises(LayoutError, match="prompt of images already written"):
            writer.group(latents_template([3], salt="!"))
    assert open_store(tmp_path / "s.zarr")["latents"].sizes["image"] == 2


def test_replace_sets_aside_and_deletes_only_after_success(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [3, 1])
    aside = Location.parse(tmp_path / "s.zarr").beside("replaced")

    def replace_and_fail() -> None:
        with create_store(tmp_path / "s.zarr") as writer:
            writer.group(latents_template([8]), replace=True)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        replace_and_fail()
    assert len(list(aside.iterdir())) == 1  # the old data is still there
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(latents_template([8]), replace=True)
        group.put("x", (0, 0, 0, 0, 0), latent(8))
        group.commit([(0,)])
    assert open_store(tmp_path / "s.zarr")["latents"].image.values.tolist() == [8]


def test_nodes_without_metadata_are_passed_over(tmp_path: Path) -> None:
    """Killed between making an array's folder and writing its zarr.json."""
    write_latents(tmp_path / "s.zarr", [3])
    (tmp_path / "s.zarr/latents/late").mkdir()
    (tmp_path / "s.zarr/activations").mkdir()
    assert list(open_store(tmp_path / "s.zarr")) == ["latents"]
    assert "late" not in open_store(tmp_path / "s.zarr")["latents"]


@pytest.mark.parametrize(
    ("name", "start", "values", "message"),
    [
        ("x", (0, 1, 0, 0, 0), latent(1), "shard border"),
        ("x", (2, 0, 0, 0, 0), latent(1), "shard border"),
        ("x", (0, 0, 0, 0, 0), latent(1)[:, :3], "expected float32"),
        ("x", (0, 0, 0, 0, 0), latent(1).astype(np.float64), "expected float32"),
        ("x", (0, 0, 0, 0, 0), [latent(1)[:, :1]] * 3, "3 chunks for 5 along step"),
        ("y", (0, 0, 0, 0, 0), latent(1), "no variable 'y'"),
    ],
)
def test_misfits_are_refused(
    tmp_path: Path, name: str, start: tuple[int, ...], values: Any, message: str
) -> None:
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(latents_template([1, 2]))
        with pytest.raises(LayoutError, match=message):
            group.put(name, start, values)
        assert not group.written().any()


def test_an_item_has_one_writer(tmp_path: Path) -> None:
    with create_store(tmp_path / "s.zarr") as first, create_store(tmp_path / "s.zarr") as second:
        one, two = (w.group(latents_template([1, 2])) for w in (first, second))
        with one.claim((0,)) as held:
            assert held
            with two.claim((0,)) as again, two.claim((1,)) as other:
                assert not again
                assert other
        with two.claim((0,)) as free:
            assert free
    assert not list(tmp_path.glob(".s.zarr.locks/*"))


def test_memory_and_file_urls(tmp_path: Path) -> None:
    for url in ("memory://writer-test/s.zarr", f"file://{tmp_path}/with%20space.zarr"):
        write_latents(url, [3, 1])
        values = write_pooled(url)
        store = open_store(url)
        assert store["latents"].x.sel(image=1).values.tobytes() == latent(1).tobytes()
        pooled = store["pooled/timestep_stats/mlp.fc2"]
        assert pooled.avg_max.values.tobytes() == values["avg_max"].tobytes()
        assert pooled.layer.values.tolist() == list(LAYERS)
    assert (tmp_path / "with space.zarr" / "zarr.json").exists()


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="not a taqstore and not empty"):
        create_store(tmp_path)
    zarr.open_group(tmp_path / "plain.zarr", mode="w")
    with pytest.raises(StoreError, match="not a taqstore"):
        open_store(tmp_path / "plain.zarr")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="in the way"):
        create_store(tmp_path / "file")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_latents(tmp_path / "s.zarr", [1])
    edit_json(
        tmp_path / "s.zarr/zarr.json",
        lambda root: root["attributes"]["taqstore"].update(format=FORMAT_VERSION + 1),
    )
    for use in (open_store, create_store):
        with pytest.raises(StoreError, match=r"format 3 is newer.*upgrade"):
            use(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.ENOSPC, "disk is full.*--resume"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not"),
    ],
)
def test_disk_refusals_are_one_line(tmp_path: Path, code: int, line: str) -> None:
    location = Location.parse(tmp_path)
    with pytest.raises(StoreError, match=line) as caught, disk_errors(location):
        raise OSError(code, os.strerror(code), str(tmp_path / "c"))
    assert "\n" not in str(caught.value)


def test_shards_are_even_and_near_the_target() -> None:
    assert rows_per_shard(1_228_800, 47, 32 << 20) == 24
    assert rows_per_shard(1, 0) == 1
    assert rows_per_shard(64 << 20, 3, 32 << 20) == 1
    template = pooled_template()
    assert template.shard_shape(template.array("avg_min")) == (3, 2, 6)
    assert template.chunk_shape(template.array("avg_min")) == (3, 1, 6)

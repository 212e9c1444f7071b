"""Reading a store: as a mapping, lazily, with or without dask, and by anyone's xarray."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import taqstore
from support.builders import latent, latents_template, write_latents, write_pooled
from taqstore import create_store, open_store
from taqstore.errors import MissingError, StoreError
from taqstore.layout.shards import MappedShard

FC2 = "pooled/timestep_stats/mlp.fc2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with latents and one pooled site."""
    write_latents(tmp_path / "s.zarr", [3, 1, 4])
    write_pooled(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def test_public_names() -> None:
    assert taqstore.__all__ == [
        "Store", "StoreWriter", "TaqError", "__version__", "create_store", "open_store",
    ]  # fmt: skip
    assert all(hasattr(taqstore, name) for name in taqstore.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        taqstore.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_store_is_a_mapping_of_groups(path: Path) -> None:
    store = open_store(path)
    assert list(store) == ["latents", FC2]
    assert len(store) == 2
    assert "latents" in store
    assert store["latents"] is store["latents"]
    with pytest.raises(MissingError, match=f"no group 'activations'.*latents, {FC2}"):
        store["activations"]


def test_whether_a_group_is_there_takes_no_reading_of_it(path: Path) -> None:
    """Lost or not: a group that is asked for by name alone is not opened."""
    store = open_store(path)
    shutil.rmtree(path / "latents")
    assert "latents" in store
    assert f"/{FC2}/" in store
    assert "activations" not in store
    assert 3 not in store
    with pytest.raises(StoreError, match="this group is lost"):
        store["latents"]


def test_datasets_are_lazy_and_documented(path: Path) -> None:
    dataset = open_store(path)["latents"]
    assert dataset.x.chunks is None
    assert not dataset.x.variable._in_memory
    assert open_store(path, chunks="auto")["latents"].x.chunks is not None
    assert dataset.x.attrs["long_name"] == "value"
    assert dataset.attrs["kind"] == "latents"
    mapped = open_store(path, chunks=None)["latents"].x
    assert mapped.chunks is None
    assert not mapped.sel(image=1).values.flags.owndata


def test_labels_slice_as_in_xarray(path: Path) -> None:
    dataset = open_store(path)[FC2]
    expected = dataset.load()
    chosen = dataset.sel(layer="mm1.txt", step=slice(0, 3)).avg_max
    assert chosen.equals(expected.avg_max.isel(layer=3, step=[0, 1]))
    image_layers = dataset.isel(layer=np.flatnonzero(dataset.stream == "img"))
    assert image_layers.layer.values.tolist() == ["mm0.img", "mm1.img", "mm2.img"]


def test_layer_by_any_spelling(path: Path) -> None:
    store = open_store(path)
    for spelling in ("mm_01_img", "mm1.img.mlp.fc2", "mm1_img_mlp_fc2", "blocks.1.image.mlp.fc2"):
        assert store.layer(spelling).layer.item() == "mm1.img"
    with pytest.raises(MissingError, match=r"name what it is the input of: mm1\.img\.mlp\.fc2"):
        store.layer("mm1.img")
    with pytest.raises(MissingError, match=r"no statistics of mm9\.img\.mlp\.fc2"):
        store.layer("mm_09_img")
    with pytest.raises(MissingError, match=r"no statistics of mm1\.img\.attn\.qkv"):
        store.layer("mm1.img.attn.qkv")
    with pytest.raises(MissingError, match=r"name what it is the input of: .*mm1\.img\.mlp\.fc2"):
        store.layer("mm1.img")


def test_plain_xarray_reads_the_same(path: Path) -> None:
    ours = open_store(path)
    with warnings.catch_warnings():
        # zarr says that consolidated metadata is not yet in the text of the v3 specification
        warnings.simplefilter("ignore")
        theirs = {name: xr.open_zarr(path, group=name, consolidated=None) for name in ours}
    for name, dataset in ours.items():
        other = theirs[name].drop_vars("written")
        xr.testing.assert_equal(dataset.load(), other.load())
        assert set(dataset.coords) == set(other.coords)
        for variable in dataset.variables:
            assert dataset[variable].dtype.kind == other[variable].dtype.kind or (
                other[variable].dtype.kind in "TO"
            )


def test_consolidated_metadata_is_never_stale(path: Path) -> None:
    def consolidated() -> bool:
        return zarr.open_group(path, mode="r").metadata.consolidated_metadata is not None

    assert consolidated()
    writer = create_store(path)
    writer.group(latents_template([3, 1, 4, 9]))
    assert not consolidated()
    assert open_store(path)["latents"].sizes["image"] == 3
    writer.finish()
    assert consolidated()


def test_blocks_of_dask_are_whole_shards(tmp_path: Path) -> None:
    ids = list(range(200))
    write_latents(tmp_path / "s.zarr", ids, only=[0])
    chunks: Any = open_store(tmp_path / "s.zarr", chunks="auto", incomplete=True)[
        "latents"
    ].x.chunks
    assert chunks[0] == (200,)  # 200 shards of 840 bytes are one block, not 200 tasks


def test_a_flipped_bit_is_seen_on_a_dask_read_and_not_hidden(path: Path) -> None:
    shard = path / "latents/x/c/1/0/0/0/0"
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    dataset = open_store(path)["latents"]
    assert dataset.x.sel(image=3).values.tobytes() == latent(3).tobytes()
    with pytest.raises(StoreError, match=r"latents/x/c/1.*damaged shard.*checksum.*--resume"):
        dataset.x.sel(image=1).load()
    counts = path / FC2 / "hist_counts/c/0/0/0"
    raw = bytearray(counts.read_bytes())
    raw[20] ^= 1
    counts.write_bytes(raw)
    with pytest.raises(StoreError, match=r"hist_counts.*damaged chunk"):
        open_store(path)[FC2].hist_counts.load()


def test_a_damaged_coordinate_is_named(path: Path) -> None:
    sigma = path / "latents/sigma/c/0"
    raw = bytearray(sigma.read_bytes())
    raw[1] ^= 4
    sigma.write_bytes(raw)
    with pytest.raises(StoreError, match="latents/sigma/c/0: damaged coordinate"):
        open_store(path)["latents"]


def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store here.*taqstore ingest"):
        open_store(tmp_path / "nothing.zarr")
    write_latents(tmp_path / "s.zarr", [1])
    (tmp_path / "s.zarr" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr\.json: damaged metadata"):
        open_store(tmp_path / "s.zarr")


def test_the_digest_follows_the_records(path: Path) -> None:
    before = open_store(path).digest
    assert before == open_store(path).digest
    from taqstore.metadata.provenance import make_record

    with create_store(path) as writer:
        writer.record(make_record("test", parameters={}, inputs=[], groups=["latents"], counts={}))
    store = open_store(path)
    assert store.digest != before
    assert [record["command"] for record in store.provenance] == ["test"]


def test_maps_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_latents(tmp_path / "s.zarr", list(range(9)))
    monkeypatch.setattr("taqstore.arrays.store_array.MAPS_KEPT", 2)
    opened: list[Path] = []
    original = MappedShard.__init__

    def counting(self: MappedShard, where: Path, framing: Any) -> None:
        opened.append(where)
        original(self, where, framing)

    monkeypatch.setattr(MappedShard, "__init__", counting)
    values = open_store(tmp_path / "s.zarr", chunks=None)["latents"].x
    for image in (0, 1, 0, 1, 5, 0):
        assert values.sel(image=image).values.tobytes() == latent(image).tobytes()
    assert len(opened) == 4


def test_a_store_that_is_open_is_not_opened_again(path: Path, openings: list[str]) -> None:
    store = open_store(path, chunks="auto")
    mapped = open_store(store, chunks=None)
    assert openings == ["r"]
    assert store["latents"].x.chunks is not None
    assert mapped["latents"].x.chunks is None
    xr.testing.assert_identical(store["latents"].load(), mapped["latents"].load())
    assert open_store(mapped, chunks="auto") is store


def test_a_group_is_looked_at_again_without_opening_the_store_again(
    tmp_path: Path, openings: list[str]
) -> None:
    """Items flagged, images added and groups made since, by a store read in two ways."""
    from taqstore.metadata.provenance import make_record

    write_latents(tmp_path / "s.zarr", [3, 1], only=[3])
    store = open_store(tmp_path / "s.zarr")
    mapped = open_store(store, chunks=None)
    before, digest = mapped["latents"], store.digest
    assert before["image"].values.tolist() == [3]
    write_latents(tmp_path / "s.zarr", [3, 1, 4])
    with create_store(tmp_path / "s.zarr") as writer:
        writer.group(replace(latents_template([5]), path="more/latents"))
        writer.record(make_record("test", parameters={}, inputs=[], groups=[], counts={}))
    assert mapped["latents"] is before
    openings.clear()
    mapped.refresh("latents", "more/latents", "nowhere")
    for found in (mapped, store):
        assert found["latents"]["image"].values.tolist() == [3, 1, 4]
        assert found["latents"].x.sel(image=4).values.tobytes() == latent(4).tobytes()
        assert found["latents"].attrs["store_digest"] == store.digest != digest
    assert before["image"].values.tolist() == [3]
    assert list(store) == ["latents", "more/latents"]
    assert openings == []
    shutil.rmtree(tmp_path / "s.zarr/more")
    store.refresh("more/latents")
    with pytest.raises(StoreError, match="more/latents: this group is lost"):
        mapped["more/latents"]

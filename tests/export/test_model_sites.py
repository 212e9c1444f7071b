"""Exports of stores that hold every linear: peers name them all, the source's documents none."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import collect

from support.live_capture import needs_models
from support.live_models import TINY
from support.live_store import make_live_store
from taqstore import open_store
from taqstore.export.formats import FORMATS, export
from taqstore.files.safetensors import read_safetensors, tensor_names
from taqstore.names import MODEL_SITES, SITES

pytestmark = needs_models


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A store of every site, one of the four of blocks, and the model's checkpoint."""
    folder = tmp_path_factory.mktemp("exported")
    whole = make_live_store(folder, TINY, images=2, steps=4)
    weights = folder / "w.safetensors"
    blocks = whole.with_name("blocks.zarr")
    import shutil

    shutil.copytree(whole, blocks)
    collect(whole, stride=1, local_ckpt=weights)
    collect(blocks, stride=1, local_ckpt=weights, sites=list(SITES))
    return whole, blocks, weights


def imatrix_names(file: Path) -> Iterator[tuple[str, int]]:
    """Names and widths of an old imatrix file, read by its layout."""
    data = file.read_bytes()
    (count,), at = struct.unpack_from("<i", data), 4
    for _ in range(count):
        (size,) = struct.unpack_from("<i", data, at)
        name = data[at + 4 : at + 4 + size].decode()
        _, width = struct.unpack_from("<ii", data, at + 4 + size)
        yield name, width
        at += 12 + size + 4 * width


def test_an_imatrix_has_every_weight_of_the_checkpoint_under_its_name(
    stores: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    whole, _, weights = stores
    store = open_store(whole)
    export("imatrix", store, tmp_path / "i.dat", names="stable-diffusion.cpp")
    tensors = {
        name: values
        for name, values in read_safetensors(weights, wanted=lambda name: True)
        if name.endswith(".weight") and values.ndim > 1
    }
    last = f"joint_blocks.{TINY_BLOCKS - 1}.context_block"
    idle = {n for n in tensors if last in n and (".mlp." in n or ".attn.proj." in n)}
    expected = {n: x[0].size for n, x in tensors.items() if n not in idle}
    assert dict(imatrix_names(tmp_path / "i.dat")) == expected


TINY_BLOCKS = 3
LINEARS = 33 + 2 * TINY_BLOCKS + 8


def test_peers_have_every_linear_under_taqstores_names(
    stores: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    store = open_store(stores[0])
    export("act-scales", store, tmp_path / "a.npz")
    export("onnx-calibration", store, tmp_path / "o.json")
    scales = np.load(tmp_path / "a.npz")
    ranges = json.loads((tmp_path / "o.json").read_text())["data"]
    assert sorted(scales.files) == sorted(ranges)
    assert len(ranges) == LINEARS
    modulation = store["activations/adaln.linear"].sel(layer="modulation")
    most = np.maximum(abs(modulation["min"]), abs(modulation["max"])).max(("batch", "step"))
    for name in ("mm0.img.adaln.linear", "mm2.txt.adaln.linear", "final_layer.adaln.linear"):
        assert np.array_equal(scales[name], most.values.astype(np.float32))


KNOWING_BLOCKS = [name for name, row in FORMATS.items() if row.blocks_only]


@pytest.mark.parametrize("name", KNOWING_BLOCKS)
def test_documents_of_the_source_are_as_of_the_sites_of_blocks(
    stores: tuple[Path, Path, Path], tmp_path: Path, name: str
) -> None:
    whole, blocks, _ = stores
    out = ("x" + (FORMATS[name].suffixes or ("",))[0],) * 2
    given = [tmp_path / "whole" / out[0], tmp_path / "blocks" / out[1]]
    for folder in given:
        folder.parent.mkdir()
    summary = export(name, open_store(whole), given[0])
    export(name, open_store(blocks), given[1])
    told = [note for note in summary.notes if "linears of blocks" in note]
    assert all(site in told[0] for site in MODEL_SITES)
    for one, other in zip(*map(_files, given), strict=True):
        assert _neutral(one, whole) == _neutral(other, blocks)


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _neutral(file: Path, store: Path) -> object:
    """Content without what names the store or the place it was written to."""
    if file.suffix == ".npz":
        return {name: values.tobytes() for name, values in np.load(file).items()}
    text = file.read_text().replace(open_store(store).digest, "DIGEST")
    return text.replace(str(file.parents[1]), "").replace(f"/{file.parents[0].name}/", "/")


def test_weights_of_a_checkpoint_are_known_for_every_site(
    stores: tuple[Path, Path, Path],
) -> None:
    """SmoothQuant's factors of every site, from the file as from the model."""
    from taqstore.pipelines.models.load import load_pipeline

    from taqstore.files.weight_absmax import weight_absmax

    whole, _, weights = stores
    found = weight_absmax(weights)
    assert set(found.sites) == {*SITES, *MODEL_SITES}
    for one in load_pipeline(TINY, local_ckpt=weights).inputs():
        expected = np.max([abs(reader.matrix()).max(axis=0) for reader in one.readers], axis=0)
        values = found.sites[one.site].sel(layer=one.layer).values
        assert np.array_equal(values, expected.astype(np.float64))
    assert "pos_embed" in " ".join(tensor_names(weights))
    sizes = open_store(whole)["activations/embed.image"].sizes
    assert found.sites["embed.image"].sizes["channel"] == sizes["channel"]

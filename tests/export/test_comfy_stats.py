"""`comfy-stats`: read by hand, and compared with the raw tensors of a synthetic run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore import open_store
from taqstore.errors import MissingError, StoreError
from taqstore.export import export
from taqstore.testing import RunShape, make_second_moments, make_store, raw_activations

SHAPE = RunShape(images=2, steps=6, blocks=2)
PREFIX = "model.diffusion_model.joint_blocks"
NAMES = {
    f"{PREFIX}.{block}.{stream}_block.{theirs}": f"mm{block}.{ours}.{part}"
    for block in range(SHAPE.blocks)
    for stream, ours in (("x", "img"), ("context", "txt"))
    for theirs, part in (
        ("attn.qkv", "attn.q_proj"),
        ("attn.proj", "attn.o_proj"),
        ("mlp.fc1", "mlp.fc1"),
        ("mlp.fc2", "mlp.fc2"),
    )
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "s.zarr", shape=SHAPE)


def raw() -> dict[str, np.ndarray]:
    """Rows (row, channel) of every linear's input, of all images and steps, as observed."""
    found: dict[str, list[np.ndarray]] = {}
    for image in range(SHAPE.images):
        for step in SHAPE.stats_steps:
            for name, x in raw_activations(SHAPE, seed=0, image=image, step=step).items():
                found.setdefault(name, []).append(x.reshape(-1, x.shape[-1]).astype(np.float16))
    return {name: np.concatenate(rows).astype(np.float64) for name, rows in found.items()}


def read_tensor(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Metadata and the one float32 tensor of a file, by the format's own description."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    entry = header["hessian"]
    assert entry["dtype"] == "F32"
    begin, end = entry["data_offsets"]
    values = np.frombuffer(content[8 + size + begin : 8 + size + end], "<f4")
    return header["__metadata__"], values.reshape(entry["shape"])


def test_statistics_are_those_of_the_tensors(store: Path, tmp_path: Path) -> None:
    summary = export("comfy-stats", open_store(store), tmp_path / "out")
    assert summary.files == 1
    assert summary.notes == ("no second moments in the store: no Hessians are written",)
    document = json.loads((tmp_path / "out" / "int4_activation_stats.json").read_text())
    assert document["schema_version"] == "int4_activation_stats.v1"
    tensors = raw()
    there = {name: own for name, own in NAMES.items() if own in tensors}
    assert set(document["layers"]) == set(there)
    for name, own in there.items():
        record, x = document["layers"][name], tensors[own]
        assert record["input_amax"] == np.abs(x).max(axis=0).tolist()
        np.testing.assert_allclose(record["input_rms"], np.sqrt((x**2).mean(axis=0)), rtol=1e-5)
        assert record["sample_count"] == SHAPE.images * len(SHAPE.stats_steps)
        assert record["element_count"] == len(x)


@pytest.mark.parametrize("block_size", [16, None])
def test_hessians_are_two_over_rows_times_the_products(
    store: Path, tmp_path: Path, block_size: int | None
) -> None:
    make_second_moments(store, shape=SHAPE, block_size=block_size)
    summary = export("comfy-stats", open_store(store), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "int4_gptq_hessian_stats.json").read_text())
    assert manifest["schema_version"] == "int4_gptq_hessian_stats.v1"
    assert manifest["normalization"] == "two_over_row_count"
    tensors = raw()
    assert manifest["layer_count"] == len(manifest["layers"]) == summary.files - 2
    assert manifest["row_count"] == sum(len(tensors[NAMES[name]]) for name in manifest["layers"])
    for name, record in manifest["layers"].items():
        x = tensors[NAMES[name]]
        blocks = np.arange(x.shape[1]) // (block_size or x.shape[1])
        expected = np.where(blocks[:, None] == blocks, 2 / len(x) * (x.T @ x), 0)
        assert (record["row_count"], record["normalization_count"]) == (len(x), len(x))
        assert record["shape"] == [x.shape[1]] * 2
        metadata, hessian = read_tensor(tmp_path / "out" / record["file_path"])
        assert metadata["layer_name"] == record["layer_name"] == name
        root = np.sqrt(np.diagonal(expected))
        assert (np.abs(hessian - expected) <= 2e-7 * np.outer(root, root)).all()
        assert (hessian == hessian.T).all()


def test_what_is_not_there_is_said(store: Path, tmp_path: Path) -> None:
    make_second_moments(tmp_path / "m.zarr", shape=SHAPE)
    with pytest.raises(MissingError, match="activations"):
        export("comfy-stats", open_store(tmp_path / "m.zarr"), tmp_path / "out")
    groups = {path: open_store(store)[path].load() for path in open_store(store)}
    groups["activations/mlp.fc2"]["m2"][0, 0, 0, 0] = np.inf
    with pytest.raises(StoreError, match="no finite numbers"):
        export("comfy-stats", groups, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Weights of a model by site and layer, from every spelling and both kinds of file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from taqstore.errors import MissingError, SourceError
from taqstore.files.safetensors import read_safetensors, write_safetensors
from taqstore.files.weight_absmax import weight_absmax
from taqstore.names import weight_layer

RNG = np.random.default_rng(12)
SPELLINGS = {
    "mm3.txt.attn.qkv": (
        "model.diffusion_model.joint_blocks.3.context_block.attn.qkv.weight",
        "joint_blocks.3.context_block.attn.qkv.weight",
    ),
    "mm3.txt.attn.k_proj": (
        "mm3.txt.attn.k_proj",
        "transformer_blocks.3.attn.add_k_proj.weight",
        "multimodal_transformer_blocks.3.text_transformer_block.attn.k_proj.weight",
    ),
    "mm0.img.attn.o_proj": (
        "mm0_img_attn_o_proj",
        "transformer.transformer_blocks.0.attn.to_out.0.weight",
        "joint_blocks.0.x_block.attn.proj.weight",
        "mmdit.multimodal_transformer_blocks.0.image_transformer_block.attn.o_proj.weight",
    ),
    "mm12.img.mlp.fc2": (
        "transformer_blocks.12.ff.net.2.weight",
        "joint_blocks.12.x_block.mlp.fc2.weight",
    ),
    "mm0.img.adaln.linear": (
        "joint_blocks.0.x_block.adaLN_modulation.1.weight",
        "transformer_blocks.0.norm1.linear.weight",
    ),
    "x_embedder.embed.image": ("x_embedder.proj.weight", "pos_embed.proj.weight"),
    "uni7.mlp.fc1": ("unified_transformer_blocks.7.transformer_block.mlp.fc1.weight",),
}


@pytest.mark.parametrize(
    ("name", "full"), [(name, full) for full, names in SPELLINGS.items() for name in names]
)
def test_spellings(name: str, full: str) -> None:
    found = weight_layer(name)
    assert found is not None
    assert found.full == full


@pytest.mark.parametrize(
    "name",
    [
        "joint_blocks.0.x_block.attn.qkv.bias",
        "joint_blocks.0.x_block.adaLN_modulation.1.bias",
        "pos_embed",
        "x_pos_embedder.pos_embed.weight",
        "modulation",
        "mm0.img",
    ],
)
def test_what_is_no_linear(name: str) -> None:
    assert weight_layer(name) is None


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_absmax_per_input_channel(tmp_path: Path, suffix: str) -> None:
    q, k, v = (RNG.normal(size=(4, 6)).astype(np.float16) for _ in range(3))
    other = RNG.normal(size=(4, 6)).astype(np.float32)
    tensors = {
        "transformer_blocks.0.attn.to_q.weight": q,
        "transformer_blocks.0.attn.to_k.weight": k,
        "transformer_blocks.0.attn.to_v.weight": v,
        "transformer_blocks.0.attn.to_v.bias": np.full(4, 99, np.float32),
        "mm1.img.attn.q_proj": np.abs(other).max(axis=0),  # an absmax already
        "transformer_blocks.0.ff.net.2.weight": RNG.normal(size=(6, 24)),
    }
    path = tmp_path / f"w.{suffix}"
    np.savez(path, **tensors) if suffix == "npz" else write_safetensors(path, tensors)
    found = weight_absmax(path)
    assert sorted(found.sites) == ["attn.qkv", "mlp.fc2"]
    qkv = found.sites["attn.qkv"]
    assert qkv["layer"].values.tolist() == ["mm0.img", "mm1.img"]
    expected = np.abs(np.concatenate([q, k, v]).astype(np.float64)).max(axis=0)
    np.testing.assert_array_equal(qkv.values[0], expected)
    np.testing.assert_array_equal(qkv.values[1], np.abs(other).max(axis=0).astype(np.float64))
    assert found.notes == [f"w.{suffix}: 1 tensors are no linears"]


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    values = np.float32([[1.5, -3.0], [0.25, 2.0]])
    header = {"mm0.img.mlp.fc1": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "w.safetensors").write_bytes(framed(header) + data)
    found = weight_absmax(tmp_path / "w.safetensors").sites["mlp.fc1"]
    assert found.values.tolist() == [[1.5, 3.0]]


def framed(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def test_safetensors_reads_what_we_write(tmp_path: Path) -> None:
    """The reference implementation, where it is installed, and ours read the same."""
    tensors = {
        "b": RNG.normal(size=(3, 5)),
        "a": RNG.normal(size=7).astype(np.float16),
        "é": np.arange(4, dtype=np.int32).reshape(2, 2).T,
        "empty": np.zeros((0, 3), np.float32),
    }
    path = tmp_path / "t.safetensors"
    write_safetensors(path, tensors, format="pt")
    ours = dict(read_safetensors(path))
    assert list(ours) == list(tensors)
    for name, values in tensors.items():
        assert ours[name].dtype == values.dtype
        np.testing.assert_array_equal(ours[name], values)
    reference = pytest.importorskip("safetensors.numpy")
    theirs = reference.load_file(path)
    for name, values in tensors.items():
        np.testing.assert_array_equal(theirs[name], values)
    reference.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    for name, values in read_safetensors(path):
        np.testing.assert_array_equal(values, tensors[name])


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED = {
    "a short file": (b"\x01\x02", "no safetensors file, or truncated"),
    "a header beyond the file": (struct.pack("<Q", 1 << 62) + b"{}", "no safetensors file"),
    "no JSON": (struct.pack("<Q", 4) + b"{{{{" + bytes(8), "the header is no JSON"),
    "a list": (framed([1]) + bytes(8), "no JSON object"),
    "no dtype": (framed({"w": {"shape": [2], "data_offsets": [0, 8]}}) + bytes(8), "bad entry"),
    "too long": (framed({"w": {**ENTRY, "shape": [3]}}) + bytes(8), "does not fit its place"),
    "beyond the end": (framed({"w": {**ENTRY, "data_offsets": [4, 12]}}) + bytes(8), "does not"),
    "negative": (framed({"w": {**ENTRY, "shape": [-1, -2]}}) + bytes(8), "does not fit"),
    "float8": (framed({"w": {**ENTRY, "dtype": "F8_E4M3"}}) + bytes(8), "NumPy does not have"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path: Path, case: str) -> None:
    data, message = DAMAGED[case]
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        list(read_safetensors(path))
    assert "\n" not in str(caught.value)


def test_refusals(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz", x=np.ones((2, 2)))
    with pytest.raises(MissingError, match=r"no weights of a model's linears \(found 1 other"):
        weight_absmax(tmp_path / "none.npz")
    uneven = {"mm0.img.attn.q_proj": np.ones((2, 3)), "mm0.img.attn.k_proj": np.ones((2, 4))}
    np.savez(tmp_path / "uneven.npz", **uneven)
    with pytest.raises(SourceError, match=r"mm0\.img\.attn\.qkv differ in inputs \(found 3 and 4"):
        weight_absmax(tmp_path / "uneven.npz")
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(MissingError, match=r"give \.safetensors or \.npz"):
        weight_absmax(tmp_path / "w.pt")

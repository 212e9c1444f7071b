"""`export comfy-w4a8`: a whole checkpoint, decoded from the file by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.cli_runner import Runner
from taqstore import open_store
from taqstore.errors import MissingError, MisuseError
from taqstore.export import export
from taqstore.export.packed.base import Base, array_of
from taqstore.files.safetensors import BFLOAT16, FLOAT8, SafetensorsFile
from taqstore.files.written import Summary
from taqstore.kinds.second_moments import moments_of
from taqstore.names import weight_layer
from taqstore.quantization.comfy.float8 import float8_values
from taqstore.quantization.comfy.rotation import hadamard
from taqstore.testing import make_second_moments, make_store
from taqstore.testing.checkpoint import MMDiTShape, make_checkpoint

SHAPE = MMDiTShape(hidden=48, blocks=3)
PREFIX = "model.diffusion_model."
FC2 = f"{PREFIX}joint_blocks.1.x_block.mlp.fc2"
QKV = f"{PREFIX}joint_blocks.0.context_block.attn.qkv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores with second moments, with activations alone and with neither; a checkpoint."""
    path = tmp_path_factory.mktemp("comfy")
    make_checkpoint(path / "model.safetensors", shape=SHAPE)
    make_second_moments(path / "moments.zarr", block_size=None)
    make_store(path / "activations.zarr")
    return path


def base_of(folder: Path) -> Base:
    file = SafetensorsFile(folder / "model.safetensors")
    return Base({name: file[name] for name in file}, "made")


def written(folder: Path, store: str, out: Path, **options: object) -> Summary:
    opened = open_store(folder / store, chunks=None) if store else {}
    return export("comfy-w4a8", opened, out, base=base_of(folder), **options)


def decoded(file: SafetensorsFile, name: str) -> np.ndarray:
    """The weight of a linear, from the tensors alone."""
    part = {key: file[f"{name}.{key}"].make() for key in ("weight", "weight_s_rel")}
    levels, channel = (file[f"{name}.weight_{key}"].make() for key in ("codebook", "s_channel"))
    told = json.loads(file[f"{name}.comfy_quant"].make().tobytes())
    packed = part["weight"].view(np.uint8)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    scale = float8_values(part["weight_s_rel"].view(np.uint8)).repeat(told["group_size"], axis=1)
    integers = np.clip(np.rint(levels[codes] * scale), -127, 127)
    size = told["convrot_groupsize"]
    turn = np.kron(np.eye(codes.shape[1] // size), hadamard(size))
    return np.asarray((integers * channel[:, None]).astype(np.float64) @ turn)


def output_error(folder: Path, file: SafetensorsFile, name: str) -> float:
    layer = weight_layer(f"{name}.weight")
    assert layer is not None
    moments = moments_of(open_store(folder / "moments.zarr"), layer.layer, layer.site)
    assert moments is not None
    away = decoded(file, name) - base_of(folder).tensors[f"{name}.weight"].make()  # type: ignore[union-attr]
    return float(np.einsum("oi,ij,oj->", away, moments.full(), away))


def test_a_whole_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Packed linears by their layout, everything else to the bit, as the checkpoint has it."""
    out = tmp_path / "a.safetensors"
    summary = written(folder, "moments.zarr", out)
    file, base = SafetensorsFile(out), base_of(folder).tensors
    layers = [name.removesuffix(".comfy_quant") for name in file if name.endswith("comfy_quant")]
    assert len(layers) == 6 + 3 * 5
    assert f"{len(layers)} linears are packed" in summary.notes[0]
    assert f"{len(layers)} by GPTQ;" in summary.notes[0]
    packed = {f"{name}.weight" for name in layers}
    for name, tensor in base.items():
        if name not in packed:
            assert file[name].make().tobytes() == array_of(tensor).tobytes()
    assert [name for name in file if name in base] == list(base)
    assert file[f"{FC2}.weight"].shape == (48, 96)
    assert file[f"{FC2}.weight_s_rel"].shape == (48, 12)
    assert file[f"{FC2}.weight_s_rel"].dtype == FLOAT8
    told = json.loads(file[f"{FC2}.comfy_quant"].make().tobytes())
    assert told == {
        "format": "asym_w4a8_int8",
        "group_size": 16,
        "convrot": True,
        "convrot_groupsize": 64,
    }
    assert set(file) - set(base) == {
        f"{name}.{part}"
        for name in layers
        for part in ("weight_s_rel", "weight_s_channel", "weight_codebook", "comfy_quant")
    }


@pytest.mark.parametrize("name", [FC2, QKV])
def test_second_moments_make_less_error(name: str, folder: Path, tmp_path: Path) -> None:
    left = {}
    for store in ("moments.zarr", "activations.zarr", ""):
        out = tmp_path / f"{store}.safetensors"
        notes = " ".join(written(folder, store, out).notes)
        known = {"moments.zarr": "GPTQ", "activations.zarr": "GPTQ of a diagonal"}
        assert f"by {known.get(store, 'rounding to nearest')}" in notes
        left[store] = output_error(folder, SafetensorsFile(out), name)
    assert left["moments.zarr"] < 0.7 * left[""]
    assert left["moments.zarr"] < left["activations.zarr"] < left[""]
    plain = tmp_path / "plain.safetensors"
    written(folder, "moments.zarr", plain, method="nearest")
    assert plain.read_bytes() == (tmp_path / ".safetensors").read_bytes()


def test_adaln_is_packed_when_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    written(folder, "", out, sites=("adaln.linear",))
    packed = {n.removesuffix(".comfy_quant") for n in SafetensorsFile(out) if "comfy" in n}
    blocks = [f"joint_blocks.{i}.{part}" for i in range(3) for part in ("x_block", "context_block")]
    assert packed == {f"{PREFIX}{at}.adaLN_modulation.1" for at in (*blocks, "final_layer")}
    with pytest.raises(MisuseError, match=r"embed\.text"):
        written(folder, "", out, sites=("embed.text",), force=True)


def test_bfloat16_weights_are_taken_exactly(folder: Path, tmp_path: Path) -> None:
    base = base_of(folder)
    wide = array_of(base.tensors[f"{FC2}.weight"]).astype(np.float32)
    bits = (wide.view(np.uint32) >> 16).astype(np.uint16)
    exact = (bits.astype(np.uint32) << 16).view(np.float32)
    made = []
    for number, values in enumerate((bits.view(BFLOAT16), exact)):
        out = tmp_path / f"{number}.safetensors"
        export("comfy-w4a8", {}, out, base=Base({f"{FC2}.weight": values}))
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_what_cannot_be_is_said(folder: Path, tmp_path: Path, taq: Runner) -> None:
    out = tmp_path / "a.safetensors"
    odd = {f"{FC2}.weight": np.zeros((4, 40), np.float16), "other": np.zeros(3)}
    with pytest.raises(MissingError, match="no linear that can be packed"):
        export("comfy-w4a8", {}, out, base=Base(odd))
    good = {f"{FC2.replace('fc2', 'fc1')}.weight": np.ones((4, 48), np.float16)}
    summary = export("comfy-w4a8", {}, out, base=Base(odd | good))
    assert (
        "not packed, for their inputs are no multiple of 16: mm1.img.mlp.fc2" in summary.notes[-1]
    )
    done = taq("export", "comfy-w4a8", folder / "moments.zarr", "-o", tmp_path / "b.bin")
    assert done.code == 2
    assert "write FILE.safetensors" in done.err
    done = taq("export", "comfy-w4a8", folder / "moments.zarr", "-o", tmp_path / "b.safetensors")
    assert "names its model" in done.err

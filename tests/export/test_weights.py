"""Quantized weights written for others come back bit for bit, read by other libraries."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from support.weight_store import (
    RUN,
    SHAPES,
    SIGMA_LOWER,
    layers_of,
    site_template,
    site_values,
    write_weights,
)
from taqstore import open_store
from taqstore.errors import MissingError, MisuseError
from taqstore.export.formats import export
from taqstore.files.schema import validate
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.names import PROJECTIONS, SITES
from taqstore.store.reader import Store

safe_open = pytest.importorskip("safetensors").safe_open
HALVES = {"img": "image_transformer_block", "txt": "text_transformer_block"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = write_weights(tmp_path_factory.mktemp("weights") / "s.zarr")
    return open_store(path, chunks=None)


def every_linear() -> list[tuple[str, str, str, dict[str, np.ndarray]]]:
    """(layer, site, section.part, values of the linear) by plain indexing of what was written."""
    found = []
    for site in SITES:
        written = site_values(site_template(site))
        for row, layer in enumerate(layers_of(site)):
            for number in range(3 if site == "attn.qkv" else 1):
                values = {
                    name: whole[row, number]
                    if site == "attn.qkv" and name != "activation_bits"
                    else whole[row]
                    for name, whole in written.items()
                }
                part = f"attn.{PROJECTIONS[number]}" if site == "attn.qkv" else site
                found.append((layer, site, part, values))
    return found


def plain_dequantized(values: dict[str, np.ndarray]) -> np.ndarray:
    weight, step = values["weight"], values["step_size"]
    size = weight.shape[1] // step.shape[1]
    out = np.zeros(weight.shape, np.float32)
    for row, column in np.ndindex(weight.shape):
        out[row, column] = np.float32(weight[row, column]) * step[row, column // size]
    return out


def test_linears_come_by_block_in_the_order_they_run(store: Store) -> None:
    assert quantized_blocks(store) == ["mm0", "mm1"]
    names = [linear.name.full for linear in quantized_linears(store, "mm1")]
    halves = [f"mm1.img.attn.{p}_proj" for p in "qkvo"] + ["mm1.img.mlp.fc1", "mm1.img.mlp.fc2"]
    assert names == [*halves, *(f"mm1.txt.attn.{p}_proj" for p in "qkv")]
    first = next(quantized_linears(store, "mm0"))
    values = next(
        v for layer, _, part, v in every_linear() if (layer, part) == ("mm0.img", "attn.q_proj")
    )
    np.testing.assert_array_equal(first.dequantized(), plain_dequantized(values))
    assert first.rounding is None
    whole = next(quantized_linears(store, "mm0", rounding=True))
    np.testing.assert_array_equal(whole.rounding, values["rounding"])


def test_the_source_layout(store: Store, tmp_path: Path) -> None:
    summary = export("adaround", store, tmp_path / "w")
    assert summary.files == 3
    told = "\n".join(summary.notes)
    fc2 = "3 of 21 linears, mm0.img.mlp.fc2, mm0.txt.mlp.fc2, mm1.img.mlp.fc2"
    assert f"the source's loader does not see a_shift: {fc2}" in told
    assert "takes the first of several activation steps: 18 of 21 linears, mm0.img.attn" in told
    assert "does not see a_multiplier: 3 of 21 linears, mm0.img.attn.o_proj" in told
    assert "does not see a_zero_point: " in told
    assert "does not see a_bits: " in told
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    validate("adaround-weights", config)
    assert config["format"] == "adaround_v1"
    assert (config["bits_w"], config["bits_a"], config["iters"]) == (4, 8, 30)
    assert "batch_size" not in config
    assert "sigma_lower" not in config
    first, last = config["block_metrics"]
    assert (first["final_loss"], last["final_loss"]) == (1.5, 4.0)
    assert first["output_error"]["rtn"] == {"img": 2.0, "txt": 5.0}
    assert last["output_error"]["clipped"] == {"img": 9.0}
    assert last["quant_paths"][-1] == "text_transformer_block.attn.v_proj"
    files = {b: np.load(tmp_path / "w" / "weights" / f"{b}.npz") for b in ("mm0", "mm1")}
    seen = 0
    for layer, site, part, values in every_linear():
        block, stream = layer.split(".")
        for name, expected in source_members(site, values).items():
            key = f"{HALVES[stream]}_{part.replace('.', '_')}__{name}"
            member = files[block][key]
            assert member.dtype == expected.dtype
            assert member.tobytes() == expected.tobytes(), key
            seen += 1
    assert seen == sum(len(file.files) for file in files.values())
    for file in files.values():
        file.close()


def source_members(site: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    theirs = {
        "weight": "weight_int", "step_size": "scale", "activation_step": "a_scale",
        "rounding": "alpha", "activation_shift": "a_shift", "activation_multiplier": "a_multiplier",
    }  # fmt: skip
    found = {name: values[ours] for ours, name in theirs.items() if ours in values}
    if values["activation_zero_point"].any():
        found["a_zero_point"] = values["activation_zero_point"]
    if set(values["activation_bits"].tolist()) != {RUN["activation_bits"]}:
        found["a_bits"] = values["activation_bits"]
    if SIGMA_LOWER[site].tolist() != [0.0]:
        found["sigma_lower"] = SIGMA_LOWER[site]
    return found


def test_safetensors(store: Store, tmp_path: Path) -> None:
    """Read by the package of the format's authors."""
    path = tmp_path / "w.safetensors"
    export("safetensors", store, path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        names = set(file.keys())
        seen = set()
        for layer, site, part, values in every_linear():
            for name, expected in {**values, "sigma_lower": SIGMA_LOWER[site]}.items():
                if name not in ("rounding", "weight_bits"):
                    key = f"{layer}.{part}.{name}"
                    tensor = file.get_tensor(key)
                    assert tensor.dtype == expected.dtype
                    assert tensor.tobytes() == expected.tobytes(), key
                    seen.add(key)
    assert names == seen
    assert json.loads(metadata["run"]) == RUN
    assert metadata["bits"] == "4"
    assert "sigma_lower" not in metadata


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_float16_weights_are_read_by_mlx(store: Store, tmp_path: Path) -> None:
    import mlx.core as mx

    path = tmp_path / "w.safetensors"
    export("safetensors-mlx", store, path)
    found = mx.load(str(path))
    linears = every_linear()
    assert len(found) == len(linears)
    for layer, site, part, values in linears:
        block, stream = layer.split(".")
        name = f"multimodal_transformer_blocks.{block[2:]}.{HALVES[stream]}.{part}.weight"
        assert tuple(found[name].shape) == SHAPES[site]
        expected = plain_dequantized(values).astype(np.float16)
        np.testing.assert_array_equal(np.array(found[name]), expected)


def test_only_complete_blocks_are_written(tmp_path: Path) -> None:
    """Layers of a block that was being committed are there, the block is not."""
    store = open_store(write_weights(tmp_path / "s.zarr", blocks=["mm1"]))
    assert quantized_blocks(store) == ["mm1"]
    export("adaround", store, tmp_path / "w")
    assert [p.name for p in (tmp_path / "w" / "weights").iterdir()] == ["mm1.npz"]
    export("safetensors", store, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        names = list(file.keys())
    assert {name.split(".")[0] for name in names} == {"mm1"}


def test_refusals(store: Store, tmp_path: Path) -> None:
    none = open_store(write_weights(tmp_path / "none.zarr", blocks=[]))
    with pytest.raises(MissingError, match=r"no block of the quantized weights is complete"):
        export("adaround", none, tmp_path / "w")
    with pytest.raises(MissingError, match=r"no quantized weights in the store; taqstore adaround"):
        export("safetensors", {}, tmp_path / "w.safetensors")
    with pytest.raises(MisuseError, match=r"w\.npz: not written as \.npz; write FILE\.safetensors"):
        export("safetensors", store, tmp_path / "w.npz")
    assert [p.name for p in tmp_path.iterdir() if p.name[0] != "."] == ["none.zarr"]

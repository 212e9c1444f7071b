"""`taqstore export mlx` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.load import load_pipeline
from taqstore.pipelines.models.reference import checkpoint_path

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.packed_store import Kind, write_set
from support.weight_store import write_weights
from taqstore import open_store
from taqstore.errors import LayoutError, MissingError
from taqstore.export import export
from taqstore.export.packed.base import Base
from taqstore.files.safetensors import SafetensorsFile
from taqstore.kinds.quantized_linears import linear_names_of, quantized_linear
from taqstore.names import path_in_model
from taqstore.quantization.packed_affine import unpack_codes

pytestmark = needs_models


def base_of(path: Path, **changed: tuple[int, ...]) -> Base:
    """Zeros in the shapes that the linears of a store want."""
    store = open_store(path, chunks=None)
    names = {path_in_model(name): name for name in linear_names_of(store)}
    shapes = {f"{p}.weight": quantized_linear(store, n).weight.shape for p, n in names.items()}
    return Base({name: np.zeros(shape, np.float16) for name, shape in (shapes | changed).items()})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlx") / "s.zarr"
    return write_set(path, load_pipeline("reference"), {"mlp.fc2": Kind(4, 64)})


def test_the_folder_says_what_it_holds(store: Path, tmp_path: Path, taq: Runner) -> None:
    done = taq("export", "mlx", store, "--weights", "made", "-o", tmp_path / "packed")
    assert done.code == 0, done.err
    assert "11 linears of made are packed in 0.281 of their float16 size" in done.err
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    assert (config["model"], config["set"]) == ("reference", "made")
    told = config["quantization"]
    assert (told.pop("group_size"), told.pop("bits")) == (64, 4)
    opened = open_store(store, chunks=None)
    assert told == {
        path_in_model(name): {"group_size": 64, "bits": 4} for name in linear_names_of(opened)
    }
    written = SafetensorsFile(tmp_path / "packed" / "model.safetensors")
    for name in linear_names_of(opened):
        linear, path = quantized_linear(opened, name), path_in_model(name)
        codes = unpack_codes(written[f"{path}.weight"].make(), 4)
        assert np.array_equal(codes.astype(int) - 8, linear.weight)
        assert np.array_equal(written[f"{path}.scales"].make(), linear.step)


def test_layers_without_weights_are_told(tmp_path: Path, taq: Runner) -> None:
    model = load_pipeline("reference")
    path = write_set(tmp_path / "s.zarr", model, {"mlp.fc2": Kind(4, 64)}, left=("mm3.img",))
    done = taq("export", "mlx", path, "-o", tmp_path / "packed")
    assert "1 layers of made hold no weights, and are as in the base" in done.err
    whole = SafetensorsFile(tmp_path / "packed" / "model.safetensors")
    kept = "multimodal_transformer_blocks.3.image_transformer_block.mlp.fc2"
    assert f"{kept}.scales" not in whole
    assert f"{kept.replace('.3.', '.2.')}.scales" in whole


def test_commands_run_the_folder(store: Path, tmp_path: Path, taq: Runner) -> None:
    out, prompts = tmp_path / "packed", tmp_path / "p.txt"
    assert taq("export", "mlx", store, "-o", out).code == 0
    prompts.write_text("a seven", encoding="utf-8")
    words = ("generate", tmp_path / "g.zarr", "--model", "reference", "--prompts", prompts)
    words = (*words, "--num-images", 1, "--steps", 2, "--local-ckpt")
    done = taq(*words, out, "--save-images", tmp_path / "pictures")
    assert done.code == 0, done.err
    assert list((tmp_path / "pictures").glob("*.png"))
    done = taq(*words, tmp_path, "--force")
    assert done.code == 1
    assert "not a folder of packed weights" in done.err


def test_it_is_replaced_when_asked_only(store: Path, tmp_path: Path, taq: Runner) -> None:
    out = tmp_path / "packed"
    assert taq("export", "mlx", store, "-o", out).code == 0
    assert "the target exists" in taq("export", "mlx", store, "-o", out).err
    assert taq("export", "mlx", store, "-o", out, "--force", "--dtype", "float32").code == 0
    (out / "mine").touch()
    assert "not an earlier output" in taq("export", "mlx", store, "-o", out, "--force").err


def test_what_cannot_be_is_said(store: Path, tmp_path: Path, taq: Runner) -> None:
    out = tmp_path / "packed"
    other = tmp_path / "other.safetensors"
    other.write_bytes(checkpoint_path().read_bytes() + b" ")
    nameless = write_weights(tmp_path / "n.zarr")
    for words, code, said in (
        ((store, "--base", other), 1, "made with other weights of reference"),
        ((store, "--weights", "gptq"), 1, "gptq"),
        ((store, "--dtype", "bfloat16"), 2, "bfloat16"),
        ((nameless,), 2, "model 'made' is not known"),
    ):
        done = taq("export", "mlx", *words, "-o", out)
        assert (done.code, said in done.err) == (code, True), done.err
        assert not out.exists()


def test_a_model_of_other_shapes_is_refused(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "s.zarr")
    opened, out = open_store(path, chunks=None), tmp_path / "packed"
    weight = f"{path_in_model(linear_names_of(opened)[0])}.weight"
    with pytest.raises(LayoutError, match="does not fit the model"):
        export("mlx", opened, out, base=base_of(path, **{weight: (6, 7)}))
    with pytest.raises(MissingError, match="the model has no"):
        export("mlx", opened, out, base=Base())
    with pytest.raises(MissingError, match="MLX can pack no linear of adaround"):
        export("mlx", opened, out, base=base_of(path))  # 6 inputs
    assert not out.exists()


def test_linears_that_mlx_has_no_groups_for_keep_floats(tmp_path: Path) -> None:
    kinds: dict[str, Any] = {"mlp.fc1": Kind(4, 16), "mlp.fc2": Kind(4, 64)}
    path = write_set(tmp_path / "s.zarr", load_pipeline("reference"), kinds)
    opened = open_store(path, chunks=None)
    summary = export("mlx", opened, tmp_path / "packed", base=base_of(path))
    notes = " ".join(summary.notes)
    assert "kept as floats on their grid: mm0.img.mlp.fc1 (groups of 16 inputs" in notes
    written = SafetensorsFile(tmp_path / "packed" / "model.safetensors")
    for name in linear_names_of(opened):
        if name.site == "mlp.fc1":
            found = written[f"{path_in_model(name)}.weight"].make()
            wanted = quantized_linear(opened, name).dequantized()
            assert np.array_equal(found.astype(np.float32), wanted)

"""Packed weights out of a store run in DiffusionKit as the floats that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.evaluate import evaluate
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.inputs import every_reader
from taqstore.pipelines.models.load import LoadedModel, load_pipeline, to_numpy
from taqstore.pipelines.models.rounding import Settings
from taqstore.pipelines.models.sampling import make_schedule, trajectory
from taqstore.pipelines.run.base_weights import base_weights

from support.live_capture import needs_models
from support.live_models import TINY_FLUX, load_tiny
from support.packed_store import Kind, write_set
from taqstore import open_store
from taqstore.errors import SourceError, StoreError, TaqError
from taqstore.export import export
from taqstore.files.safetensors import SafetensorsFile
from taqstore.kinds.quantized_linears import linear_names_of, quantized_linear
from taqstore.names import EVERY_SITE, SITES
from taqstore.store.reader import Store

pytestmark = needs_models
MIXED = {
    "attn.qkv": Kind(4, 64),
    "attn.o_proj": Kind(3, 128, affine=False),
    "mlp.fc1": Kind(7, None, affine=False, half=False),
    "mlp.fc2": Kind(5, 32),
}


def packed_of(store: Store, out: Path, **options: Any) -> Path:
    export("mlx", store, out, base=base_weights(store, "mlx"), **options)
    return out


def dequantized(model: LoadedModel, store: Store) -> LoadedModel:
    """The model with what the store's integers stand for."""
    mx, readers = backend().mx, {reader.name: reader for reader in every_reader(model.mmdit)}
    for name in linear_names_of(store):
        module = readers[name].module
        weight = quantized_linear(store, name).dequantized()
        module.weight = mx.array(weight).reshape(module.weight.shape)
    return model


def latents(model: LoadedModel, *, steps: int = 6) -> np.ndarray:
    conditioning = model.encode_text("a thin seven", cfg_weight=model.row.cfg_weight)
    schedule = make_schedule(model, steps)
    prompt = model.prepare(conditioning, schedule.timesteps)
    size = model.row.latent_size
    found = trajectory(model, prompt, schedule, seed=3, latent_size=size)
    return np.array([to_numpy(x.astype(backend().mx.float32)) for x in found])


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("mixed")
    path = write_set(folder / "s.zarr", load_pipeline("reference"), MIXED)
    store = open_store(path, chunks=None)
    return store, packed_of(store, folder / "packed")


def test_bits_and_groups_differ_by_layer_and_the_model_runs(mixed: tuple[Store, Path]) -> None:
    store, folder = mixed
    model = load_pipeline("reference", local_ckpt=folder)
    for reader in every_reader(model.mmdit):
        if reader.name.site not in MIXED:
            assert "scales" not in reader.module
            continue
        kind = MIXED[reader.name.site]
        assert type(reader.module).__name__ == "QuantizedLinear"
        assert reader.module.bits == (8 if kind.bits == 7 else kind.bits)
        assert reader.module.group_size == (kind.group_size or 128)
        wanted = quantized_linear(store, reader.name).dequantized()
        assert np.abs(reader.matrix() - wanted).max() <= 3e-7 * np.abs(wanted).max()
    found, wanted = latents(model), latents(dequantized(load_pipeline("reference"), store))
    assert relative(found[1], wanted[1]) <= 5e-6
    assert max(map(relative, found, wanted)) <= 1e-5
    assert relative(wanted[-1], latents(load_pipeline("reference"))[-1]) > 1e-3


def test_every_linear_of_a_model_is_packed(tmp_path: Path) -> None:
    """adaLN, embedders and the final layer too; a convolution keeps floats on its grid."""
    kinds = dict.fromkeys(EVERY_SITE, Kind(4, 64))
    path = write_set(tmp_path / "s.zarr", load_pipeline("reference"), kinds)
    store = open_store(path, chunks=None)
    base = base_weights(store, "mlx")
    summary = export("mlx", store, tmp_path / "packed", base=base)
    assert any("embed.image (no linear in MLX)" in note for note in summary.notes)
    model = load_pipeline("reference", local_ckpt=tmp_path / "packed")
    floats = [r.name.site for r in every_reader(model.mmdit) if "scales" not in r.module]
    assert floats == ["embed.image"]
    found, wanted = latents(model), latents(dequantized(load_pipeline("reference"), store))
    assert max(map(relative, found, wanted)) <= 1e-5


def test_what_is_not_packed_is_the_checkpoint_to_the_bit(mixed: tuple[Store, Path]) -> None:
    store, folder = mixed
    base = base_weights(store, "mlx").tensors
    written = SafetensorsFile(folder / "model.safetensors")
    packed = {n.removesuffix(".scales") for n in written if n.endswith(".scales")}
    assert len(packed) == len(linear_names_of(store))
    for name, tensor in base.items():
        if name.removesuffix(".weight") not in packed:
            assert written[name].make().tobytes() == tensor.make().tobytes()  # type: ignore[union-attr]
    assert {str(written[n].dtype) for n in written if n in base} == {"float16", "uint32"}


def test_mlx_own_predicate_reads_the_config(mixed: tuple[Store, Path]) -> None:
    """As mlx-lm does it: settings by path, else whatever has scales."""
    import mlx.nn as nn
    from taqstore.pipelines.models.limits import config_of
    from taqstore.pipelines.models.table import find_model

    _, folder = mixed
    libraries = backend()
    config = json.loads((folder / "config.json").read_text())["quantization"]
    weights = libraries.mx.load(str(folder / "model.safetensors"))
    mmdit = libraries.model_io.MMDiT(config_of(find_model("reference")))

    def predicate(path: str, module: Any) -> Any:
        if path in config:
            return dict(config[path])
        return hasattr(module, "to_quantized") and f"{path}.scales" in weights

    nn.quantize(
        mmdit, group_size=config["group_size"], bits=config["bits"], class_predicate=predicate
    )
    mmdit.load_weights(list(weights.items()))


def test_bfloat16_of_another_family_is_kept(tmp_path: Path) -> None:
    model = load_tiny(tmp_path, TINY_FLUX)
    checkpoint = tmp_path / "half.safetensors"
    mx = backend().mx
    weights = mx.load(str(next(tmp_path.glob("tiny-flux*"))))
    mx.save_safetensors(str(checkpoint), {k: v.astype(mx.bfloat16) for k, v in weights.items()})
    model = load_pipeline(TINY_FLUX, local_ckpt=checkpoint)
    kinds = dict.fromkeys(SITES, Kind(8, 32))
    store = open_store(write_set(tmp_path / "s.zarr", model, kinds), chunks=None)
    base = base_weights(store, "mlx", checkpoint=checkpoint)
    export("mlx", store, tmp_path / "packed", base=base)
    written = SafetensorsFile(tmp_path / "packed" / "model.safetensors")
    assert "bfloat16" in str(written["context_embedder.weight"].dtype)
    wide = load_pipeline(TINY_FLUX, local_ckpt=tmp_path / "packed", dtype="float32")
    own = dequantized(load_pipeline(TINY_FLUX, local_ckpt=checkpoint, dtype="float32"), store)
    assert max(map(relative, latents(wide, steps=2), latents(own, steps=2))) <= 1e-5


@pytest.fixture
def broken(mixed: tuple[Store, Path], tmp_path: Path) -> Callable[..., Path]:
    """Write the folder again with other tensors or another config."""
    _, folder = mixed
    mx = backend().mx

    def write(change: Any = None, **config: Any) -> Path:
        tensors = dict(mx.load(str(folder / "model.safetensors")))
        if change is not None:
            change(tensors)
        mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
        told = json.loads((folder / "config.json").read_text()) | config
        (tmp_path / "config.json").write_text(json.dumps(told))
        return tmp_path

    return write


PATH = "multimodal_transformer_blocks.1.text_transformer_block.attn.q_proj"
CHANGES = {
    "Missing 1 parameters": lambda found: found.pop(f"{PATH}.biases"),
    "parameters not in model": lambda found: found.update(other=found[f"{PATH}.biases"]),
    "Expected shape": lambda found: found.update(
        {f"{PATH}.scales": found[f"{PATH}.scales"][:, :1]}
    ),
    "is mlx.core.float16": lambda found: found.update(
        {f"{PATH}.weight": found[f"{PATH}.weight"].astype(found[f"{PATH}.scales"].dtype)}
    ),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_file_that_is_not_the_whole_model_is_refused(said: str, broken: Any) -> None:
    """MLX would leave random weights, or compute with integers, without a word."""
    with pytest.raises(SourceError, match=said):
        load_pipeline("reference", local_ckpt=broken(CHANGES[said]))


def test_a_config_that_does_not_fit_is_refused(broken: Any, tmp_path: Path) -> None:
    for config, said in (
        ({"model": "sd3-medium"}, "packed weights of sd3-medium"),
        ({"content": "other"}, "packed weights of"),
        ({"quantization": {"no.such": {"group_size": 64, "bits": 4}}}, "no linear no.such"),
        ({"quantization": [1]}, "nothing that is understood"),
        ({"quantization": {PATH: {"group_size": 64, "bits": 4}}}, "not those of reference"),
    ):
        with pytest.raises(SourceError, match=said):
            load_pipeline("reference", local_ckpt=broken(**config))
    (tmp_path / "config.json").unlink()
    with pytest.raises(SourceError, match="not a folder of packed weights"):
        load_pipeline("reference", local_ckpt=tmp_path)


def test_packed_linears_are_observed_and_judged_but_not_rounded_again(
    mixed: tuple[Store, Path], tmp_path: Path
) -> None:
    """As the model of a store: what needs their floats says so in one line."""
    _, folder = mixed
    (tmp_path / "p.txt").write_text("a seven", encoding="utf-8")
    path = tmp_path / "s.zarr"
    generate(path, Request("reference", tmp_path / "p.txt", 1, steps=2, local_ckpt=folder))
    collect(path, stride=1, sites=("mlp.fc2",), local_ckpt=folder)
    cache(path, stride=1, chosen=("mm0",), local_ckpt=folder)
    said = r"weights of mm0\.img\.attn\.q_proj are packed already"
    with pytest.raises(TaqError, match=said):
        evaluate(path, variants=[Variant.parse("rtn")], local_ckpt=folder)
    with pytest.raises(TaqError, match=said):
        adaround(path, settings=Settings(iterations=2), local_ckpt=folder)
    with pytest.raises(StoreError, match="made with other weights"):
        collect(path, stride=1, sites=("mlp.fc1",))

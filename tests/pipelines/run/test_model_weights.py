"""`analyze smooth` with the weights of the model that the store names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.reference import checkpoint_path
from taqstore.pipelines.models.rounding import Settings
from taqstore.pipelines.run.model_weights import model_weight_absmax, named_model

from support.live_capture import needs_models
from support.live_models import TINY, load_tiny
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import MissingError
from taqstore.names import MODEL_LAYERS, MODULATION, SITES

pytestmark = needs_models
# What the checkpoint, in the layout of SD3's, calls them; qkv lie in one matrix.
SITE = {site: site.replace("o_proj", "proj") for site in SITES}
ROOT = "model.diffusion_model"
# And the layers without a block, but for the modulation, which many linears read.
OTHERS = {
    "x_embedder": ("x_embedder.proj",),
    "context_embedder": ("context_embedder",),
    "y_embedder": ("y_embedder.mlp.0", "y_embedder.mlp.2"),
    "t_embedder": ("t_embedder.mlp.0", "t_embedder.mlp.2"),
    "final_layer": ("final_layer.linear",),
}


def made(folder: Path, model: str, checkpoint: Path | None = None) -> Path:
    (folder / "p.txt").write_text("a three", encoding="utf-8")
    path = folder / "s.zarr"
    generate(path, Request(model, folder / "p.txt", 1, steps=2, local_ckpt=checkpoint))
    collect(path, stride=1, local_ckpt=checkpoint)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("reference"), "reference")


def smooth(store: Path, *words: str) -> Any:
    command = ["analyze", "smooth", str(store), "--site", "attn.qkv", "--json", *words]
    return CliRunner().invoke(cli, command)


def test_the_weights_are_those_of_the_checkpoint(reference: Path) -> None:
    """Beside the file as it ships, read by another reader."""
    tensors = load_file(checkpoint_path())
    found = model_weight_absmax(open_store(reference))
    assert found.keys() == {*SITE, *(site for sites in MODEL_LAYERS.values() for site in sites)}
    for site in SITES:
        array = found[site]
        for layer in array["layer"].values:
            block, stream = str(layer).removeprefix("mm").split(".")
            word = {"img": "x", "txt": "context"}[stream]
            start = f"{ROOT}.joint_blocks.{block}.{word}_block"
            column = abs(tensors[f"{start}.{SITE[site]}.weight"].astype("f8")).max(axis=0)
            np.testing.assert_array_equal(array.sel(layer=layer), column)
    for layer, names in OTHERS.items():
        for site, name in zip(MODEL_LAYERS[layer], names, strict=False):
            weight = abs(tensors[f"{ROOT}.{name}.weight"].astype("f8"))
            # A convolution's patch has its channels last.
            column = np.moveaxis(weight, 1, -1).max(axis=0).ravel()
            np.testing.assert_array_equal(found[site].sel(layer=layer), column)
    every = [w for name, w in tensors.items() if name.endswith("adaLN_modulation.1.weight")]
    column = np.max([abs(w.astype("f8")).max(axis=0) for w in every], axis=0)
    np.testing.assert_array_equal(found["adaln.linear"].sel(layer=MODULATION), column)


def test_the_command_takes_them_where_nothing_else_is_given(
    reference: Path, tmp_path: Path
) -> None:
    plain = smooth(reference)
    assert plain.exit_code == 0, plain.output
    assert "weights are those of reference, the model that the store names" in plain.stderr
    absmax = model_weight_absmax(open_store(reference))["attn.qkv"]
    np.savez(
        tmp_path / "w.npz", **{f"{n}.attn.qkv": absmax.sel(layer=n) for n in absmax.layer.values}
    )
    given = smooth(reference, "--weights", str(tmp_path / "w.npz"))
    assert json.loads(given.stdout)["tables"] == json.loads(plain.stdout)["tables"]


def test_rounded_weights_of_some_blocks_do_not_stand_for_all(
    reference: Path, tmp_path: Path
) -> None:
    """In `analyze` and in `diff` alike: the model's are taken, as if nothing were rounded."""
    store = tmp_path / "s.zarr"
    shutil.copytree(reference, store)
    plain = json.loads(smooth(store).stdout)["tables"]
    cache(store, chosen=["mm0"], stride=1)
    adaround(store, settings=Settings(iterations=1, batch_size=1))
    assert open_store(store)["weights/adaround/attn.qkv"].sizes["layer"] == 2
    assert json.loads(smooth(store).stdout)["tables"] == plain
    factors = {f"mm0_img_attn_{p}_proj": [1.5] * 128 for p in "qkv"}
    document = {"alpha": 0.5, "scale_clip": None, "layers": factors}
    (tmp_path / "theirs.json").write_text(json.dumps(document))
    run = CliRunner().invoke
    taken = run(cli, ["ingest", str(tmp_path / "theirs.json"), str(tmp_path / "t.zarr")])
    assert taken.exit_code == 0, taken.output
    group = ["pooled/smoothquant_scales/attn.qkv", "factor", "--analysis", "smooth"]
    found = run(cli, ["diff", str(tmp_path / "t.zarr"), str(store), *group])
    assert found.exit_code == 0, found.output
    assert "weights are those of reference" in found.stderr


def test_a_model_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    """Made with a checkpoint of the user's own, which the command does not know."""
    model = load_tiny(tmp_path, TINY)
    store = made(tmp_path, TINY.name, model.checkpoint)
    opened = open_store(store)
    assert named_model(opened) == TINY.name
    with pytest.raises(MissingError, match=r"of tiny, which the store names.*--weights FILE"):
        model_weight_absmax(opened)
    with pytest.raises(MissingError, match="weights of tiny"):
        CliRunner().invoke(cli, ["analyze", "smooth", str(store)], catch_exceptions=False)

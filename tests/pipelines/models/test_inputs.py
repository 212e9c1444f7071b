"""The table of linears: every one of the model once, its path, its weight, the tensor it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.inputs import Reader
from taqstore.pipelines.models.load import LoadedModel

from support.live_capture import needs_models
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny
from taqstore.names import MODEL_SITES, SITES, parse_layer, path_in_model, site_rank

pytestmark = needs_models


@pytest.fixture(scope="module", params=[TINY, TINY32, TINY_FLUX], ids=lambda row: row.name)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("checkpoint"), request.param)


def readers(model: LoadedModel) -> list[Reader]:
    return [reader for one in model.inputs() for reader in one.readers]


def test_every_matrix_of_the_model_is_read_once_and_nothing_else_is(model: LoadedModel) -> None:
    """What is left of the parameter tree: biases, norms, positions, and what nothing depends on."""
    weights = {
        path.removesuffix(".weight"): values
        for path, values in backend().utils.tree_flatten(model.mmdit.parameters())
        if path.endswith(".weight") and values.ndim > 1 and "pos_embed" not in path
    }
    last = f"multimodal_transformer_blocks.{len(model.mmdit.multimodal_transformer_blocks) - 1}"
    idle = {path for path in weights if path.startswith(f"{last}.text") and ".mlp." in path}
    if model.mmdit.config.depth_unified:
        idle = set()
    found = readers(model)
    assert sorted(reader.path for reader in found) == sorted(set(weights) - idle)
    for reader in found:
        values = weights[reader.path].astype(backend().mx.float32)
        assert np.array_equal(reader.matrix(), np.array(values).reshape(reader.shape))
        assert reader.matrix().dtype == np.float32
        assert reader.packable == (values.ndim == 2)
        assert path_in_model(reader.name) == reader.path


def test_inputs_stand_in_store_order_under_the_names_of_stores(model: LoadedModel) -> None:
    found = model.inputs()
    order = [(site_rank(one.site), parse_layer(one.layer).sort_key) for one in found]
    assert order == sorted(set(order))
    assert {one.site for one in found} == {*SITES, *MODEL_SITES}
    for one in found:
        tensor = parse_layer(f"{one.layer}.{one.site}")
        assert {reader.name.input for reader in one.readers} == {tensor}
        assert {reader.shape[1] for reader in one.readers} == {one.channels}
        assert one.weights == sum(reader.matrix().size for reader in one.readers)


def test_all_adaln_linears_read_one_tensor(model: LoadedModel) -> None:
    (one,) = [x for x in model.inputs() if x.site == "adaln.linear"]
    config = model.mmdit.config
    halves = 2 * config.depth_multimodal + config.depth_unified
    assert one.layer == "modulation"
    assert len(one.readers) == halves + 1
    assert one.readers[-1].name.full == "final_layer.adaln.linear"


def test_a_packed_linear_tells_the_weight_it_runs_with(tmp_path: Path) -> None:
    import mlx.nn as nn

    model, mx = load_tiny(tmp_path, TINY32), backend().mx
    name = parse_layer("mm1.img.mlp.fc2")
    (before,) = [x for x in readers(model) if x.name == name]

    def chosen(path: str, module: Any) -> bool:
        return bool(path == before.path)

    nn.quantize(model.mmdit, bits=4, group_size=32, class_predicate=chosen)
    (after,) = [x for x in readers(model) if x.name == name]
    packed = mx.quantize(mx.array(before.matrix()), group_size=32, bits=4)
    expected = np.array(mx.dequantize(*packed, group_size=32, bits=4))
    assert after.shape == before.shape
    assert (before.packable, after.packable) == (True, False)
    assert np.array_equal(after.matrix(), expected)


def test_a_patch_is_in_the_order_of_the_embedders_weight(model: LoadedModel) -> None:
    """The convolution equals the matrix times what its reader is said to read."""
    (one,) = [x for x in model.inputs() if x.site == "embed.image"]
    (reader,) = one.readers
    mx, channels = backend().mx, reader.module.weight.shape[-1]
    x = np.random.default_rng(1).normal(size=(2, 4, 6, channels)).astype("f4")
    patches = np.array(reader.read(mx.array(x)))
    assert patches.shape[-1] == one.channels
    module = reader.module
    expected = np.array(module(mx.array(x).astype(module.weight.dtype)).astype(mx.float32))
    found = patches.astype("f8") @ reader.matrix().T.astype("f8")
    found += np.array(module.bias.astype(mx.float32))
    tolerance = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[model.dtype]
    error = np.abs(found.reshape(expected.shape) - expected).max()
    assert error <= tolerance * np.abs(expected).max()

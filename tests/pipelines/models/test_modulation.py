"""AdaLN parameters computed in every forward: DiffusionKit's own, and linears act on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_inputs
from taqstore.pipelines.models.layers import modulated
from taqstore.pipelines.models.load import LoadedModel, to_numpy
from taqstore.pipelines.models.modulation import modulation, rows_of
from taqstore.pipelines.models.quantized.quantized_model import LinearPlan, quantize
from taqstore.pipelines.models.sampling import make_schedule

from support.live_capture import needs_models, reset_modulation
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny
from taqstore.errors import TaqError
from taqstore.names import ADALN, MODEL_SITES, SITES, parse_layer

pytestmark = needs_models


@pytest.fixture(scope="module", params=[TINY, TINY32, TINY_FLUX], ids=lambda row: row.name)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("checkpoint"), request.param)


def forward(model: LoadedModel, text: str = "a cat", step: int = 1) -> np.ndarray:
    schedule = make_schedule(model, 3)
    conditioning = model.encode_text(text, cfg_weight=model.row.cfg_weight)
    prompt = model.prepare(conditioning, schedule.timesteps)
    mx, rng = backend().mx, np.random.default_rng(2)
    x = mx.array(rng.normal(size=(1, 4, 6, 16)).astype("f4"))
    found = model.denoise(x, schedule.timesteps[step], schedule.sigmas[step], prompt)
    return np.array(to_numpy(found))


def test_it_is_diffusionkits_table_bit_for_bit(model: LoadedModel) -> None:
    mx, mmdit = backend().mx, model.mmdit
    timesteps = make_schedule(model, 5).timesteps
    pooled = model.encode_text("ein Hund", cfg_weight=model.row.cfg_weight).pooled
    modules = modulated(mmdit)
    ours = [modulation(mmdit, modules, pooled, rows_of(t, len(pooled))) for t in timesteps]
    mx.eval(ours)
    mmdit.cache_modulation_params(pooled, timesteps)
    theirs = [module["_modulation_params"] for module in modules]
    reset_modulation(model)
    for timestep, values in zip(timesteps, ours, strict=True):
        for table, value in zip(theirs, values, strict=True):
            known = table[timestep.item()]
            assert (value.dtype, value.shape) == (known.dtype, known.shape)
            assert np.array_equal(to_numpy(value), to_numpy(known))


def test_a_forward_leaves_the_model_as_it_was(model: LoadedModel) -> None:
    utils = backend().utils
    before = dict(utils.tree_flatten(model.mmdit.parameters()))
    first = forward(model)
    after = dict(utils.tree_flatten(model.mmdit.parameters()))
    assert {name: after[name].shape for name in before} == {
        name: values.shape for name, values in before.items()
    }
    assert not any("_modulation_params" in module for module in modulated(model.mmdit))
    assert np.array_equal(forward(model), first)


ACTING = (
    "mm0.img.adaln.linear", "mm1.txt.adaln.linear", "final_layer.adaln.linear",
    "y_embedder.pooled.fc1", "y_embedder.pooled.fc2", "t_embedder.time.fc1", "t_embedder.time.fc2",
)  # fmt: skip


@pytest.mark.parametrize("name", ACTING)
def test_other_weights_act_in_every_forward_and_only_in_theirs(
    model: LoadedModel, name: str
) -> None:
    """The same prompt and timestep in turn, the float model between: neither leaks into another."""
    readers = {reader.name: reader for one in model.inputs() for reader in one.readers}
    reader = readers[parse_layer(name)]
    plain = forward(model)
    others = [
        quantize(model, {reader.name: LinearPlan(reader.matrix() * factor)})
        for factor in (np.float32(0.5), np.float32(0.25))
    ]
    found = [forward(other) for other in others]
    assert np.array_equal(forward(model), plain)
    assert np.array_equal(forward(others[0]), found[0])
    own, mx = reader.module.weight, backend().mx
    for factor, seen in zip((0.5, 0.25), found, strict=True):
        assert not np.array_equal(seen, plain)
        reader.module.weight = own * mx.array(factor, own.dtype)
        try:
            assert np.array_equal(forward(model), seen)
        finally:
            reader.module.weight = own


def test_hooks_see_every_linear_in_every_forward(model: LoadedModel) -> None:
    taken: list[tuple[str, str, Any]] = []

    def take(inputs: Any) -> None:
        taken.extend((one.site, one.layer, to_numpy(x).copy()) for one, x in inputs)

    with watching_inputs(model, (*SITES, *MODEL_SITES), take):
        first = forward(model, step=0)
        count = len(taken)
        forward(model, step=0)
        forward(model, step=1)
    assert count == len(model.inputs())
    assert len(taken) == 3 * count
    runs = [{(s, n): x for s, n, x in taken[i * count :][:count]} for i in range(3)]
    assert all(np.array_equal(x, runs[1][key]) for key, x in runs[0].items())
    for key in ((ADALN, "modulation"), ("time.fc1", "t_embedder")):
        assert not np.array_equal(runs[0][key], runs[2][key])
    assert np.array_equal(forward(model, step=0), first)


def test_unified_blocks_hand_one_tensor_over_twice(tmp_path: Path) -> None:
    """`attn.qkv` and `mlp.fc1` read the same array where attention and MLP run side by side."""
    model = load_tiny(tmp_path, TINY_FLUX)
    found: dict[tuple[str, str], Any] = {}

    def take(inputs: Any) -> None:
        found.update({(one.layer, one.site): x for one, x in inputs})

    with watching_inputs(model, SITES, take):
        forward(model)
    same = {layer for layer, _ in found if found[layer, SITES[0]] is found[layer, "mlp.fc1"]}
    assert same == {"uni0", "uni1"}


def test_a_linear_that_is_never_called_is_an_error_that_names_it(tmp_path: Path) -> None:
    model = load_tiny(tmp_path, TINY32)
    block = model.mmdit.multimodal_transformer_blocks[1].image_transformer_block
    compiled = backend().mx.compile(lambda x: x * 1.0)
    block.mlp.__class__ = type("FFN", (type(block.mlp),), {"__call__": lambda self, x: compiled(x)})
    forward(model)
    match = r"2 linears to be watched were never called: mm1\.img\.mlp\.fc1, mm1\.img\.mlp\.fc2"
    with (
        pytest.raises(TaqError, match=match),
        watching_inputs(model, SITES, lambda inputs: None),
    ):
        forward(model)

"""A block on its own equals the block inside the model; its gradients are those of its loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_blocks
from taqstore.pipelines.models.layers import blocks
from taqstore.pipelines.models.load import LoadedModel, to_numpy
from taqstore.pipelines.models.rounding import Minibatch, Optimiser, Settings, positions_of
from taqstore.pipelines.models.sampling import make_schedule
from taqstore.pipelines.models.table import ModelRow

from support.live_capture import needs_models
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny
from support.rounding_store import block_run, make_rounding_store, minibatch, starts
from support.same_stores import assert_same_bits
from taqstore.errors import MissingError
from taqstore.kinds.block_samples import open_block
from taqstore.quantization.weight_grid import dequantized, round_to_nearest, weight_steps

pytestmark = needs_models
SMOOTH = Settings(activation_bits=0, iterations=10, warmup=0.0)


Cached = tuple[Path, LoadedModel]


def make(folder: Path, row: ModelRow) -> Cached:
    store = make_rounding_store(folder, row)
    (folder / "w.safetensors").rename(folder / f"{row.name}.0.safetensors")
    model = load_tiny(folder, row)
    return store, model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Cached:
    return make(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Cached:
    return make(tmp_path_factory.mktemp("flux"), TINY_FLUX)


@pytest.fixture(params=["tiny", "flux"])
def cached(request: pytest.FixtureRequest) -> Cached:
    found: Cached = request.getfixturevalue(request.param)
    return found


def test_every_block_run_from_the_cache_gives_the_cached_output(
    cached: Cached,
) -> None:
    store, model = cached
    for block in blocks(model.mmdit):
        run = block_run(model, block.name)
        for number in range(len(open_block(store, block.name))):
            batch = minibatch(store, model, block.name, [number])
            # The cache holds float16; what FLUX computed in bfloat16 is exact in it.
            inputs = {n: x.astype(model.pipeline.activation_dtype) for n, x in batch.inputs.items()}
            found = run.outputs(inputs, run.modulation(batch.pooled, batch.timestep))
            assert set(found) == set(batch.targets)
            for stream, target in batch.targets.items():
                ours = to_numpy(found[stream]).astype(np.float16)
                assert_same_bits(ours, to_numpy(target), (block.name, stream))


def test_every_block_equals_itself_inside_a_float32_model(tmp_path: Path) -> None:
    model = load_tiny(tmp_path, TINY32)
    schedule, mx = make_schedule(model, 3), backend().mx
    conditioning = model.encode_text("a cat", cfg_weight=5.0)
    prompt = model.prepare(conditioning, schedule.timesteps)
    x = mx.array(np.random.default_rng(0).normal(size=(1, 8, 4, 16)).astype(np.float32))
    with watching_blocks(model.mmdit) as streams:
        mx.eval(model.denoise(x, schedule.timesteps[1], schedule.sigmas[1], prompt))
    for index, block in enumerate(blocks(model.mmdit)):
        run = block_run(model, block.name)
        inputs = {name: s[index][None, :, :, 0] for name, s in streams.by_name().items()}
        time = schedule.timesteps[1:2]
        found = run.outputs(inputs, run.modulation(conditioning.pooled[None], time))
        for stream, tensor in found.items():
            inside = streams.by_name()[stream][index + 1][None, :, :, 0]
            assert_same_bits(to_numpy(tensor), to_numpy(inside), (block.name, stream))


def test_samples_together_give_what_they_give_alone(cached: Cached) -> None:
    """Different images and steps in one forward, each with its own adaLN parameters."""
    store, model = cached
    name = blocks(model.mmdit)[-1].name
    optimiser = Optimiser(block_run(model, name), SMOOTH, {})
    weights = [w.astype(np.float32) for w in originals(optimiser)]
    alone = [
        optimiser.errors([minibatch(store, model, name, [n])], weights, "first") for n in range(6)
    ]
    together = optimiser.errors([minibatch(store, model, name, range(6))], weights, "first")
    for stream, error in together.error.items():
        # The targets were computed in float16, the block here computes in float32.
        assert error < 1e-5 * together.power[stream]
        assert error == pytest.approx(sum(e.error[stream] for e in alone), rel=1e-3)
        assert together.count[stream] == sum(e.count[stream] for e in alone)


def originals(optimiser: Optimiser) -> list[np.ndarray]:
    return [to_numpy(module.weight) for _, module in optimiser.run.linears]


def directional(
    optimiser: Optimiser, batch: Minibatch, kind: str, step: float
) -> tuple[float, float]:
    """Derivative of the whole loss along a random direction: by gradient, and by differences."""
    mx, rng = backend().mx, np.random.default_rng(1)
    values: list[Any] = getattr(optimiser, kind)
    along = [mx.array(rng.normal(size=v.shape).astype(np.float32)) for v in values]
    _, of_v, of_steps = optimiser.gradients(batch)
    gradient = of_v if kind == "v" else of_steps
    pairs = zip(gradient, along, strict=True)
    exact = sum(float(np.sum(np.array(g, np.float64) * np.array(d))) for g, d in pairs)
    ends = []
    for sign in (1, -1):
        moved = [v + sign * step * d for v, d in zip(values, along, strict=True)]
        setattr(optimiser, kind, moved)
        ends.append(optimiser.gradients(batch)[0] + optimiser.rounding_loss())
    setattr(optimiser, kind, values)
    return exact, (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("group_size", [None, 8])
def test_gradient_of_v_against_differences(cached: Cached, group_size: int | None) -> None:
    store, model = cached
    name = blocks(model.mmdit)[0].name
    settings = Settings(
        bits=3, group_size=group_size, activation_bits=0, iterations=10, warmup=0.0,
        rounding_weight=0.3, beta=(4.0, 2.0),
    )  # fmt: skip
    optimiser = Optimiser(block_run(model, name), settings, {})
    rng = np.random.default_rng(2)
    shaken = [rng.uniform(-1.5, 1.5, v.shape).astype(np.float32) for v in optimiser.v]
    optimiser.v = [backend().mx.array(v) for v in shaken]
    batch = minibatch(store, model, name, [0, 3, 5], weight=np.array([0.5, 2.0, 0.25]))
    exact, measured = directional(optimiser, batch, "v", 3e-3)
    assert exact == pytest.approx(measured, rel=2e-3)


def test_gradient_of_activation_steps_against_differences(
    tiny: Cached,
) -> None:
    """Steps so small that nearly all is clipped: rounding, which LSQ passes over, has no part.

    The target is the input, so that the loss is made by what the linears add alone.
    """
    store, model = tiny
    run = block_run(model, "mm0")
    settings = Settings(activation_bits=2, iterations=10)
    optimiser = Optimiser(run, settings, starts(run, [2e-3, 4e-3, 1e-3], shifted=True))
    group = {"mlp.fc2": np.array([0, 2, 0])}
    batch = minibatch(store, model, "mm0", [0, 3, 5], group=group)
    batch = replace(batch, targets=batch.inputs)
    exact, measured = directional(optimiser, batch, "steps", 3e-2)
    assert exact == pytest.approx(measured, rel=2e-2)
    _, _, of_steps = optimiser.gradients(batch)
    used = {"attn.o_proj": [0], "mlp.fc2": [0, 2]}  # what comes before them is cut off by clipping
    for (name, _), gradient in zip(run.linears, of_steps, strict=True):
        if name.site in used:
            assert np.flatnonzero(np.array(gradient)).tolist() == used[name.site], name.full


def test_a_minibatch_in_parts_has_the_same_gradients(
    tiny: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = tiny
    run = block_run(model, "mm1")
    optimiser = Optimiser(run, Settings(iterations=10), starts(run, [0.05]))
    batch = minibatch(store, model, "mm1", range(5))
    loss, of_v, of_steps = optimiser.gradients(batch)
    monkeypatch.setattr("taqstore.pipelines.models.rounding.forward.PART_BYTES", 1)
    parts_loss, parts_v, parts_steps = optimiser.gradients(batch)
    assert loss == pytest.approx(parts_loss, rel=1e-5)
    for one, other in zip((*of_v, *of_steps), (*parts_v, *parts_steps), strict=True):
        bound = 1e-4 * float(np.abs(np.array(one)).max()) + 1e-9
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=0, atol=bound)


def test_every_linear_gets_inputs_on_the_grid_of_their_time_group(
    tiny: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by patching `nn.Linear` itself."""
    import mlx.nn as nn

    store, model = tiny
    run, mx = block_run(model, "mm0"), backend().mx
    given = starts(run, [0.06, 0.011], shifted=True)
    optimiser = Optimiser(run, Settings(activation_bits=6, iterations=1), given)
    batch = minibatch(store, model, "mm0", [1, 4], group={"mlp.fc2": np.array([1, 0])})
    names = {id(module): name for name, module in run.linears}
    original, seen = nn.Linear.__call__, dict[int, np.ndarray]()

    def call(self: Any, x: Any) -> Any:
        if id(self) in names:
            seen[id(self)] = np.array(x.astype(mx.float32))
        return original(self, x)

    monkeypatch.setattr(nn.Linear, "__call__", call)
    optimiser.errors([batch], [w.astype(np.float32) for w in originals(optimiser)], "first")
    assert len(seen) == len(names)
    for key, x in seen.items():
        start = given[names[key]]
        groups = [1, 1, 0, 0] if names[key].site == "mlp.fc2" else [0] * 4
        for row, group in enumerate(groups):
            level = x[row]
            if start.shift is not None:
                level = level - start.shift[group].astype(np.float32)
            level = level / np.float32(start.step[group])
            # Every value the linear gets lies on the grid of its row.
            np.testing.assert_allclose(level, np.rint(level), atol=2e-3)
            assert level.min() >= -32.01
            assert level.max() <= 31.01


def test_the_model_is_as_before(cached: Cached) -> None:
    store, model = cached
    name = blocks(model.mmdit)[0].name
    run = block_run(model, name)
    before = [(type(m), to_numpy(m.weight).copy()) for _, m in run.linears]
    settings = Settings(iterations=2, batch_size=2, qdrop=0.5)
    optimiser = Optimiser(run, settings, starts(run, [0.05]))
    optimiser.learn(minibatch(store, model, name, [0, 1]))
    whole = minibatch(store, model, name, [0, 1])
    target = {stream: x[..., :3] for stream, x in whole.targets.items()}
    with pytest.raises(ValueError, match="broadcast"):
        optimiser.learn(replace(whole, targets=target))
    for (kind, weight), (_, module) in zip(before, run.linears, strict=True):
        assert type(module) is kind
        assert_same_bits(to_numpy(module.weight), weight)


def test_rotating_models_need_the_size_of_the_latents(cached: Cached) -> None:
    _, model = cached
    if model.row.name == "tiny":
        assert positions_of(model, latent_size=None, text_tokens=5) is None
    else:
        with pytest.raises(MissingError, match="size of the latents"):
            positions_of(model, latent_size=None, text_tokens=5)


def test_a_plateau_is_seen_at_the_end_of_a_window_and_once_roundings_have_settled(
    tiny: Cached,
) -> None:
    _, model = tiny
    settings = Settings(iterations=100, patience=2, activation_bits=0)
    optimiser = Optimiser(block_run(model, "mm0"), settings, {})
    mx, down = backend().mx, [backend().mx.full(v.shape, -9.0) for v in optimiser.v]
    learning, between = [9.0, 9.0, 5.0, 5.0, 4.0, 4.0], optimiser.v
    for losses, v, done in (
        (learning, down, False),
        ([*learning, 4.0, 4.0], down, False),
        ([*learning, *[4.0] * 4], down, True),
        ([*learning, *[4.0] * 5], down, False),  # inside a window
        ([*learning, *[4.0] * 4], between, False),
        ([*learning, *[3.9] * 4], down, False),
        ([1.0] * 100, between, True),  # all iterations
    ):
        optimiser.losses, optimiser.v = losses, [mx.array(x) for x in v]
        assert optimiser.done is done, losses


def test_rounded_weights_beat_rounding_to_nearest(cached: Cached) -> None:
    store, model = cached
    name = blocks(model.mmdit)[-1].name
    run = block_run(model, name)
    settings = Settings(bits=3, iterations=60, batch_size=6, learning_rate=0.05, activation_bits=8)
    optimiser = Optimiser(run, settings, starts(run, [0.05]))
    batch = minibatch(store, model, name, range(6))
    while not optimiser.done:
        optimiser.learn(batch)
    weights = [w.astype(np.float32) for w in originals(optimiser)]
    steps = [weight_steps(w, bits=3, clip="absmax") for w in weights]
    nearest = [
        dequantized(round_to_nearest(w, s, bits=3), s) for w, s in zip(weights, steps, strict=True)
    ]
    error = optimiser.errors([batch], optimiser.hard_weights()).error
    rtn = optimiser.errors([batch], nearest, "first").error
    assert sum(error.values()) < 0.8 * sum(rtn.values())
    for result, weight, step in zip(optimiser.rounded().values(), weights, steps, strict=True):
        off = np.abs(dequantized(result.weight, result.step_size) - weight)
        assert (off <= step * (1 + 1e-4)).all()
        np.testing.assert_array_equal(result.step_size, step)
        assert result.weight.min() >= -4
        assert result.weight.max() <= 3

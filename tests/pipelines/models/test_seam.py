"""What stands above the seam runs another family as it runs DiffusionKit's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.models.capture import watching_inputs
from taqstore.pipelines.models.sampling import make_schedule, trajectory
from taqstore.pipelines.models.seam import Model

from support.gated_family import DEPTH, WIDE, gated
from support.live_capture import needs_models, patched_linears
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny

pytestmark = needs_models
SITES = ("mlp.fc1", "mlp.fc2", "embed.image", "final.linear")


def sampled(model: Model, steps: int, size: tuple[int, int]) -> list[np.ndarray]:
    schedule = make_schedule(model, steps)
    weight = model.row.cfg_weight
    prompt = model.prepare(model.encode_text("a cat", cfg_weight=weight), schedule.timesteps)
    latents = trajectory(model, prompt, schedule, seed=1, latent_size=size)
    return [model.to_store(x) for x in latents]


def test_another_family_is_sampled_and_every_linear_of_it_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, taken = gated(), dict[tuple[str, str], list[np.ndarray]]()

    def take(inputs: Any) -> None:
        for one, x in inputs:
            taken.setdefault((one.layer, one.site), []).append(np.array(x))

    plain = sampled(model, 3, (2, 3))
    with patched_linears(monkeypatch) as seen, watching_inputs(model, SITES, take):
        watched = sampled(model, 3, (2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert list(taken) == [(one.layer, one.site) for one in sorted(model.inputs(), key=_as_run)]
    for one in model.inputs():
        tensors = taken[one.layer, one.site]
        assert len(tensors) == 3 * 2  # a forward for each row of guidance
        for reader in one.readers:  # w1 and w3 read one tensor
            assert np.array_equal(seen[id(reader.module)], tensors[-1])
    assert [one.weights for one in model.inputs() if one.site == "mlp.fc1"] == [192] * DEPTH
    assert {x.shape[-1] for x in taken["uni1", "mlp.fc2"]} == {WIDE}


def _as_run(one: Any) -> tuple[int, str]:
    """Inputs in the order of a forward: embedded, block by block, put out."""
    order = {"x_embedder": 0, "uni0": 1, "uni1": 2, "final_layer": 3}
    return order[one.layer], one.site


@pytest.mark.parametrize("row", [TINY, TINY32, TINY_FLUX], ids=lambda row: row.name)
def test_diffusionkits_models_are_models(tmp_path: Path, row: Any) -> None:
    """Also for the type checker; latents come back from a store to the bit."""
    model: Model = load_tiny(tmp_path, row)
    for latent in sampled(model, 2, row.latent_size):
        assert latent.dtype == np.float32
        assert latent.shape == (*row.latent_size, 16)
        assert np.array_equal(model.to_store(model.to_model(latent)), latent)
    assert model.module is model.mmdit  # type: ignore[attr-defined]
    assert next(block.name for block in model.blocks()) == "mm0"

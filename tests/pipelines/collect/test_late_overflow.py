"""A weight that is too large at late steps alone: a live model in float16, found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.models.load import LoadedModel

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY
from support.live_store import make_live_store
from taqstore import open_store
from taqstore.query import analyze
from taqstore.run.mode import Mode

pytestmark = needs_models
IMAGES, STEPS = 2, 4
LATE, BAD = 3, 1


def planted(patch: pytest.MonkeyPatch, factor: float) -> None:
    """Scale fc1 of mm1.img in the last step of the second image, and put it back after."""
    calls, whole = iter(range(IMAGES * STEPS)), LoadedModel.denoise

    def denoise(self: LoadedModel, *given: Any) -> Any:
        import mlx.core as mx

        at = divmod(next(calls), STEPS)
        linear = self.mmdit.multimodal_transformer_blocks[1].image_transformer_block.mlp.fc1
        weight = linear.weight
        if at == (BAD, LATE):
            linear.weight = weight * factor
        found = whole(self, *given)
        mx.eval(found)
        linear.weight = weight
        return found

    patch.setattr(LoadedModel, "denoise", denoise)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_live_store(tmp_path_factory.mktemp("late"), TINY, images=IMAGES, steps=STEPS)


@pytest.fixture
def broken(latents: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    planted(monkeypatch, 30000.0)
    weights = latents.with_name("w.safetensors")

    collect(latents, stride=1, local_ckpt=weights, mode=Mode(force=True))
    return latents


def test_it_is_named_with_layer_step_and_image(broken: Path, taq: Runner) -> None:
    found = analyze("overflow", open_store(broken))["overflow"]
    place = f"in the input of mm1.img.mlp.fc2 at step {LATE}, image {BAD}"
    assert place in found.attrs["first_nonfinite"]
    failed = taq("analyze", "overflow", broken, "--fail")
    assert failed.code == 1
    assert failed.err.count("first non-finite:") == 1
    assert place in failed.err
    early = taq("analyze", "overflow", broken, "--fail", "--step", f"0:{LATE}")
    assert early.code == 0, early.err
    other = taq("analyze", "overflow", broken, "--fail", "--batch", "0")
    assert other.code == 0, other.err
    floats = found["step_headroom"].sel(format="float16").values
    assert floats[LATE] == 0
    assert (floats[:LATE] > 1).all()
    pictures = found["image_headroom"].sel(format="float16").values
    assert (pictures > 0).tolist() == [True, False]
    # Counted by hand from what was stored.
    counts = open_store(broken)["activations/mlp.fc2"]["nonfinite"].sel(layer="mm1.img")
    assert np.argwhere(counts.sum("nonfinite_kind").values).tolist() == [[BAD, LATE]]


@pytest.mark.parametrize("part", [Mode(resume=True, only=(0,)), None], ids=["in part", "resumed"])
def test_a_run_that_saw_none_tells_of_those_that_were_there(
    broken: Path, part: Mode | None
) -> None:
    """What this run did not write may hold any; so may what another process wrote."""
    from taqstore.kinds.nonfinite import notes

    weights = broken.with_name("w.safetensors")
    told = notes(open_store(broken))
    assert told
    done = collect(broken, stride=1, local_ckpt=weights, mode=part or Mode(resume=True))
    assert done.written == 0
    assert set(told) <= set(done.notes)

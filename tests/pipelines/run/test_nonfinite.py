"""Latents that are no numbers are never flagged; what a model made of them is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.models.load import Tensor, to_numpy
from taqstore.pipelines.models.reducers import numpy_reducer

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import write_checkpoint
from support.same_stores import assert_same_bits
from taqstore.pipelines import generate as generate_module
from taqstore.statistics.observation import Observation
from taqstore.store.reader import open_store
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
SEED, STEPS, IMAGES = 7, 4, 3


def words(folder: Path, *more: str) -> list[str]:
    prompts = folder / "prompts.txt"
    prompts.write_text("a cat\na dog", encoding="utf-8")
    if not (folder / "w.safetensors").exists():
        write_checkpoint(folder / "w.safetensors")
    given = ["generate", str(folder / "run.zarr"), "--model", "tiny", "--prompts", str(prompts)]
    given += ["--local-ckpt", str(folder / "w.safetensors"), "--seed", str(SEED)]
    return [*given, "--steps", str(STEPS), "--images", str(IMAGES), *more]


def poisoned(step: int, image: int, value: float) -> Any:
    """The sampler, with one value of one latent of one image replaced."""
    from taqstore.pipelines.models.sampling import trajectory

    def sample(*args: Any, seed: int, **options: Any) -> Iterator[Tensor]:
        for number, x in enumerate(trajectory(*args, seed=seed, **options)):
            if (number, seed) == (step, SEED + image):
                x[0, 1, 2, 3] = value
            yield x

    return sample


@pytest.mark.parametrize(("step", "value"), [(2, np.nan), (STEPS, -np.inf)])
def test_an_image_that_is_no_number_is_not_flagged(
    tmp_path: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch, step: int, value: float
) -> None:
    monkeypatch.setattr(generate_module, "trajectory", poisoned(step, 1, value))
    refused = taq(*words(tmp_path))
    assert (refused.code, refused.out) == (1, "")
    (line,) = refused.err.splitlines()
    assert f"image 1 has non-finite latents at step {step} (found 1 of " in line
    assert "--resume" in line
    assert open_store(tmp_path / "run.zarr")["latents"]["image"].values.tolist() == [0]
    assert verify_store(tmp_path / "run.zarr").damage == ()
    monkeypatch.undo()
    again = taq(*words(tmp_path, "--resume"))
    assert again.code == 0, again.err
    (tmp_path / "sound").mkdir()
    assert taq(*words(tmp_path / "sound")).code == 0
    found, sound = (
        open_store(folder / "run.zarr")["latents"]["x"].values
        for folder in (tmp_path, tmp_path / "sound")
    )
    assert found.shape[0] == IMAGES
    assert_same_bits(found, sound, "x")


def test_no_picture_is_made_of_them(
    tmp_path: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_module, "trajectory", poisoned(STEPS, 0, np.nan))
    assert taq(*words(tmp_path, "--save-images", str(tmp_path / "pictures"))).code == 1
    assert not list(tmp_path.glob("pictures/*"))
    assert "latents" not in open_store(tmp_path / "run.zarr") or not len(
        open_store(tmp_path / "run.zarr")["latents"]["image"]
    )


def test_collect_says_where_it_saw_them(tmp_path: Path, taq: Runner) -> None:
    assert taq(*words(tmp_path)).code == 0
    calls = iter(range(10**6))

    def reducer(tensors: Sequence[Tensor], mantissa_bits: int) -> list[Observation]:
        call = next(calls)
        seen = [np.array(to_numpy(tensor)) for tensor in tensors]
        if call == 2 * STEPS + 1:  # the second step of the third image
            seen[0][..., :2, 1] = np.inf
        return numpy_reducer(seen, mantissa_bits)

    options: dict[str, Any] = {"local_ckpt": tmp_path / "w.safetensors", "stride": 1}
    outcome = collect(tmp_path / "run.zarr", sites=["mlp.fc2"], reducer=reducer, **options)
    (note,) = outcome.notes
    rows = open_store(tmp_path / "run.zarr")["activations/mlp.fc2"]["nonfinite"].values
    count = int(rows.sum())
    assert count == rows[..., 1].sum() > 0
    assert note.startswith(
        f"activations/mlp.fc2: {count} non-finite values ({count} +Inf), "
        "first in mm0.img at step 1, image 2;"
    )
    again = taq("collect", tmp_path / "run.zarr", "--sites", "mlp.fc2", "--stride", "1",
                "--local-ckpt", tmp_path / "w.safetensors", "--resume")  # fmt: skip
    assert again.code == 0, again.err
    assert f"note: {note}" in again.err

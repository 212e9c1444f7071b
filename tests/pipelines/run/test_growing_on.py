"""Merged runs grow like others; a run that had nothing left to write leaves no record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.collect.second_moments import SecondMoments
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.ingest import ingest

from support.live_capture import needs_models
from support.live_models import write_checkpoint
from taqstore import open_store
from taqstore.errors import LayoutError, TaqError
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.attributes import attribute_of
from taqstore.testing import RunShape, make_latents
from taqstore.upkeep.merge import merge
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
RESUME = Mode(resume=True)
MOMENTS = SecondMoments(16, images=1)
# Of twelve, of which each grows like these.
SITES = ("attn.qkv", "mlp.fc2")
SMALL = RunShape(images=2, steps=2, latent=(3, 2), channels=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("growing")
    write_checkpoint(made / "w.safetensors")
    (made / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    return made


def made(store: Path, folder: Path, *, images: int, seed: int, mode: Mode | None = None) -> Outcome:
    request = Request("tiny", folder / "prompts.txt", images, steps=2, seed=seed)
    asked = Request(**{**vars(request), "local_ckpt": folder / "w.safetensors"})
    return generate(store, asked, mode=mode)


@pytest.fixture(scope="module")
def merged(folder: Path) -> Path:
    """Two runs that both count from 0, of other seeds and the same prompts, with all tracks."""
    weights = folder / "w.safetensors"
    for name, seed in (("a.zarr", 42), ("b.zarr", 900)):
        made(folder / name, folder, images=2, seed=seed)
        cache(folder / name, stride=1, local_ckpt=weights)
        collect(folder / name, stride=1, sites=SITES, local_ckpt=weights, second_moments=MOMENTS)
    merge(folder / "a.zarr", folder / "b.zarr", folder / "ab.zarr", renumber=True)
    return folder / "ab.zarr"


@pytest.fixture
def store(merged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(merged, tmp_path / "run.zarr"))


def test_a_merged_run_grows_in_every_track(store: Path, folder: Path) -> None:
    before = {path: open_store(store)[path].load() for path in open_store(store)}
    assert made(store, folder, images=6, seed=42, mode=RESUME).written == 2
    weights = folder / "w.safetensors"
    cache(store, stride=1, local_ckpt=weights, mode=RESUME)
    collect(store, stride=1, sites=SITES, local_ckpt=weights, second_moments=MOMENTS, mode=RESUME)
    opened = open_store(store)
    latents = opened["latents"]
    assert latents["image"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert latents["seed"].values.tolist() == [42, 43, 900, 901, 46, 47]
    assert latents["prompt"].values.tolist() == ["a cat", "a dog"] * 3
    assert "seed" not in attribute_of(latents, "run")
    for path, old in before.items():
        grows = "batch" if "batch" in old.dims else "image"
        assert opened[path].sizes[grows] == old.sizes[grows] + 2
        kept = opened[path].isel({grows: slice(0, old.sizes[grows])})
        for name in old.data_vars:
            assert np.array_equal(
                kept[name].values, old[name].values, equal_nan=old[name].dtype.kind == "f"
            ), (path, name)
    # The new images are those that one run of six would have made.
    other = store.with_name("whole.zarr")
    made(other, folder, images=6, seed=42)
    whole = open_store(other)["latents"]["x"].sel(image=[4, 5]).values
    assert np.array_equal(latents["x"].sel(image=[4, 5]).values, whole)
    assert verify_store(store).damage == ()


def test_a_merged_run_that_would_repeat_an_image_is_refused(store: Path, folder: Path) -> None:
    with pytest.raises(TaqError, match=r"image 4 would be image 2 again.*--seed"):
        made(store, folder, images=6, seed=896, mode=RESUME)
    assert open_store(store)["latents"].sizes["image"] == 4


def test_another_configuration_does_not_grow_a_merged_run(store: Path, folder: Path) -> None:
    request = Request("tiny", folder / "prompts.txt", 6, steps=3)
    asked = Request(**{**vars(request), "local_ckpt": folder / "w.safetensors"})
    with pytest.raises(LayoutError, match="steps"):
        generate(store, asked, mode=RESUME)


def _ingest(store: Path, folder: Path) -> Outcome:
    source = store.with_name("source")
    if not source.exists():
        make_latents(source, shape=SMALL)
    return ingest([source], store.with_name("ingested.zarr"), mode=RESUME)


AGAIN: dict[str, Callable[[Path, Path], Outcome]] = {
    "generate": lambda s, f: made(s, f, images=4, seed=42, mode=RESUME),
    "cache": lambda s, f: cache(s, stride=1, local_ckpt=f / "w.safetensors", mode=RESUME),
    "collect": lambda s, f: collect(
        s, stride=1, sites=SITES, local_ckpt=f / "w.safetensors", mode=RESUME
    ),
    "ingest": _ingest,
}


@pytest.mark.parametrize("name", AGAIN)
def test_nothing_written_is_not_recorded(name: str, store: Path, folder: Path) -> None:
    run = AGAIN[name]
    run(store, folder)
    place = store.with_name("ingested.zarr") if name == "ingest" else store
    records = json.dumps(open_store(place).provenance)
    assert run(store, folder).written == 0
    assert json.dumps(open_store(place).provenance) == records

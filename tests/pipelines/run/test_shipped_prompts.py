"""Prompts that come with a model are taken where a user names none, and recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from taqstore.pipelines.models.reference import digit_prompts, prompts_path
from taqstore.pipelines.models.table import MODELS, resolve
from taqstore.pipelines.sources.parts.prompt_files import read_prompts

from support.cli_runner import Runner
from support.live_capture import needs_models
from taqstore import open_store

SHIPPED = [name for name, row in MODELS.items() if row.shipped_prompts]


def test_the_reference_models_prompts_are_those_it_makes() -> None:
    assert prompts_path().read_text(encoding="utf-8").splitlines() == digit_prompts(32, seed=1)
    assert "reference" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_prompts_can_be_read(name: str) -> None:
    found = read_prompts(Path(resolve(MODELS[name].shipped_prompts)()))  # type: ignore[arg-type]
    assert len(set(found.texts)) >= 8
    assert found.notes == ()


@needs_models
def test_without_prompts_those_that_ship_are_recorded(taq: Runner, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    done = taq("generate", path, "--model", "reference", "--num-images", 3, "--steps", 1)
    assert done.code == 0
    assert "note: prompts are those that come with reference; --prompts FILE" in done.err
    store = open_store(path)
    assert store["latents"]["prompt"].values.tolist() == digit_prompts(32, seed=1)[:3]
    (record,) = store.provenance
    assert record["parameters"]["prompts"] == "those that come with reference"
    (told,) = record["inputs"]
    assert (told["name"], told["bytes"]) == ("prompts.txt", prompts_path().stat().st_size)


@needs_models
@pytest.mark.parametrize(("images", "told"), [(3, True), (2, False)])
def test_more_images_than_prompts_are_said(
    taq: Runner, tmp_path: Path, images: int, told: bool
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("zero\none\n", encoding="utf-8")
    words = ("--model", "reference", "--prompts", prompts, "--steps", 1)
    done = taq("generate", tmp_path / "run.zarr", *words, "--num-images", images)
    assert done.code == 0, done.err
    note = f"note: 2 prompts for {images} images: they are taken in turn"
    assert (note in done.err) == told
    made = open_store(tmp_path / "run.zarr")["latents"]["prompt"].values.tolist()
    assert made == ["zero", "one", "zero"][:images]


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(SHIPPED)))
def test_a_model_without_prompts_asks_for_some(taq: Runner, tmp_path: Path, name: str) -> None:
    done = taq("generate", tmp_path / "run.zarr", "--model", name, "--num-images", 1)
    assert done.code == 2
    assert f"no prompts come with {name}; give --prompts FILE" in done.err
    assert list(tmp_path.iterdir()) == []

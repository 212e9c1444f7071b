"""A store of the reference model that images are judged beside: few steps, everything in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.load import LoadedModel, load_pipeline

from support.made_once import made_once
from support.set_of_model import write_set

STEPS = 3


def make_judged_store(path: Path, *, images: int = 2, seed: int = 42) -> Path:
    """Latents and activations of the reference model, and the weight set `whole`."""
    key = "judged", path.name, images, seed
    made_once(key, lambda work: _make(work / path.name, images, seed), path.parent)
    return path


def _make(path: Path, images: int, seed: int) -> None:
    prompts = path.with_name("prompts.txt")
    prompts.write_text("a handwritten seven\na handwritten two", encoding="utf-8")
    generate(path, Request("reference", prompts, images, steps=STEPS, seed=seed))
    collect(path)
    write_set(path, load_pipeline("reference"), "whole")


@contextmanager
def forwards_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count forwards by class of the model: `LoadedModel` is the model as it is."""
    counts: dict[str, int] = {}
    denoise = LoadedModel.denoise

    def counted(self: LoadedModel, *arguments: object) -> object:
        counts[type(self).__name__] = counts.get(type(self).__name__, 0) + 1
        return denoise(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "denoise", counted)
        yield counts

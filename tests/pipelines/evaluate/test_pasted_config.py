"""A policy's config as a variant: the format between, and next to nothing where it protects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.evaluate import evaluate
from taqstore.pipelines.evaluate.linears_of_variant import Options
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.load import LoadedModel

from support.effects_store import sensitivity
from support.live_capture import needs_models
from support.live_models import TINY, load_tiny
from taqstore import open_store
from taqstore.export.pasted.table import pasted
from taqstore.query import analyze

pytestmark = needs_models
STEPS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("weights"), TINY)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "p.txt").write_text("a cat", encoding="utf-8")
    path, checkpoint = folder / "s.zarr", model.checkpoint
    generate(path, Request(TINY.name, folder / "p.txt", 1, steps=STEPS, local_ckpt=checkpoint))
    collect(path, stride=1, local_ckpt=checkpoint)
    return path


@pytest.mark.parametrize("format", ["a4-static", "a3-step", "a4-step-shift"])
@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (0, 2)])
def test_protected_steps_run_as_they_are(
    store: Path, model: LoadedModel, tmp_path: Path, format: str, pair: tuple[int, int]
) -> None:
    opened = open_store(store)
    groups: dict[str, xr.Dataset] = {path: opened[path] for path in opened}
    names = [str(step) for step in range(STEPS)]
    groups[f"sensitivity/step/{format}"] = sensitivity(names, seed=1, inputs=True)
    first, last = pair
    results = analyze(
        "policy", groups, format=format, protect=first + last, max_first=first, max_last=last
    )
    file = tmp_path / "config.json"
    file.write_text(pasted("policy", "quant-config", groups, results), "utf-8")
    ways = [Variant.parse("float/config"), Variant.parse(f"float/{format}")]
    found = evaluate(
        store, variants=ways, options=Options(config=file), local_ckpt=model.checkpoint
    ).result
    error = found["denoiser_error"]
    ours, plain = (error.sel(variant=way.name).values for way in ways)
    protected = np.array([i < first or i >= STEPS - last for i in range(STEPS)])
    np.testing.assert_allclose(ours[~protected], plain[~protected], rtol=1e-4)
    # 16 bits by the same bound, and what float16 of the tiny model leaves.
    assert (ours[protected] < plain[protected] * 5e-3).all()
    if pair == (0, 0) and "shift" not in format:
        assert np.array_equal(ours, plain)

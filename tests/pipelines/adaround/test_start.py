"""`adaround --start SET`: rounding begins at a set's integers and keeps its grids."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.adaround.adaround import adaround, block_errors
from taqstore.pipelines.gptq.gptq import gptq
from taqstore.pipelines.gptq.settings import GptqSettings
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.rounding import Settings
from taqstore.pipelines.models.rounding.soft import LEAN, sigmoid, soften_at

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store
from taqstore import open_store
from taqstore.errors import MissingError, MisuseError
from taqstore.kinds.quantized_linears import quantized_linears
from taqstore.names import SITES
from taqstore.store.attributes import attribute_of

pytestmark = needs_models
QUICK = Settings(iterations=6, batch_size=4, learning_rate=0.2, activation_bits=0)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_rounding_store(tmp_path_factory.mktemp("start"), TINY)
    settings = GptqSettings(bits=3, group_size=16, site_bits={"mlp.fc2": 5})
    gptq(path, settings=settings, sites=SITES, local_ckpt=path.with_name("w.safetensors"))
    return path


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    shutil.copy(filled.with_name("w.safetensors"), tmp_path)
    return Path(shutil.copytree(filled, tmp_path / "run.zarr"))


def run(store: Path, settings: Settings = QUICK, **options: Any) -> Any:
    checkpoint = store.with_name("w.safetensors")
    return adaround(store, settings=settings, local_ckpt=checkpoint, chosen=["mm0"], **options)


@pytest.mark.parametrize("affine", [False, True])
def test_a_soft_weight_starts_at_integers_wherever_they_are(affine: bool) -> None:
    """Two steps away and at both ends of the grid too; steps below 0 as MLX has them."""
    mx, rng = backend().mx, np.random.default_rng(3)
    weight = rng.normal(size=(9, 24)).astype(np.float32)
    step = np.full((9, 3), -0.3 if affine else 0.3, np.float32)
    offset = rng.normal(size=(9, 3)).astype(np.float32) * 0.2 if affine else None
    wide, at = (np.repeat(x, 8, axis=1) for x in (step, np.zeros_like(step)))
    if offset is not None:
        at = np.repeat(offset, 8, axis=1)
    level = (weight - at) / wide
    integers = np.clip(np.rint(level) + rng.integers(-2, 3, weight.shape), -4, 3).astype(np.int8)
    given = None if offset is None else mx.array(offset)
    soft, v = soften_at(mx.array(weight), mx.array(integers), mx.array(step), (-4, 3), given)
    np.testing.assert_array_equal(np.array(soft.hard(v)), integers)
    other = np.clip(np.where(level >= integers, integers + 1.0, integers - 1.0), -4, 3)
    for far in (30.0, -30.0):
        moved = mx.where(v > -31, mx.full(v.shape, far), v)
        hard = np.array(soft.hard(moved))
        assert ((hard == integers) | (hard == other)).all()
    first = (np.array(soft.soft(sigmoid(v))) - at) / wide
    lean = np.minimum(np.abs(level - integers), LEAN) * np.sign(level - integers)
    expected = np.where(other == integers, integers, integers + lean)
    np.testing.assert_allclose(first, expected, atol=2e-5)


def test_results_lie_on_the_grids_of_the_set(store: Path) -> None:
    run(store, start="gptq")
    opened = open_store(store)
    begun = {x.name: x for x in quantized_linears(opened, "mm0", set="gptq")}
    found = {x.name: x for x in quantized_linears(opened, "mm0", set="adaround", rounding=True)}
    assert set(found) == set(begun)
    moved = 0
    for name, one in found.items():
        np.testing.assert_array_equal(one.step, begun[name].step)
        np.testing.assert_array_equal(one.offset, begun[name].offset)
        assert one.bits == begun[name].bits == (5 if name.site == "mlp.fc2" else 3)
        away = one.weight.astype(int) - begun[name].weight
        assert np.abs(away).max() <= 1
        moved += np.count_nonzero(away)
    assert moved
    told = attribute_of(opened["weights/adaround/mlp.fc1"], "run")
    assert (told["start"]["set"], told["grid"]) == ("gptq", "affine")
    rows = block_errors(store)
    assert {row["against"] for row in rows} == {"start"}
    assert all(row["start"] > 0 and row["adaround/start"] > 0 for row in rows)


def test_with_no_learning_it_is_the_set(store: Path) -> None:
    still = Settings(iterations=1, batch_size=4, learning_rate=1e-12, activation_bits=0)
    run(store, still, start="gptq", set="same")
    opened = open_store(store)
    for ours, theirs in zip(
        quantized_linears(opened, "mm0", set="same"),
        quantized_linears(opened, "mm0", set="gptq"),
        strict=True,
    ):
        np.testing.assert_array_equal(ours.weight, theirs.weight)
        np.testing.assert_array_equal(ours.dequantized(), theirs.dequantized())
    assert all(row["adaround"] == row["start"] for row in block_errors(store, set="same"))


def test_what_cannot_start_is_refused(taq: Runner, store: Path) -> None:
    with pytest.raises(MisuseError, match="cannot start from itself"):
        run(store, start="gptq", set="gptq")
    with pytest.raises(MissingError, match="no weight set"):
        run(store, start="none")
    shown = taq("adaround", store, "--start", "gptq", "--weight-bits", "4")
    assert (shown.code, "--start keeps those of its set" in shown.err) == (2, True)

"""ComfyUI's layout as a variant: its own quantizer, and codes by GPTQ on the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.load import LoadedModel, load_pipeline

from support.live_capture import needs_models
from taqstore import open_store
from taqstore.errors import MissingError, MisuseError
from taqstore.kinds.second_moments import diagonal_of
from taqstore.names import SITES
from taqstore.quantization.comfy.codebook import w4a8_gptq, w4a8_nearest
from taqstore.quantization.comfy.rotation import rotated_moments
from taqstore.quantization.gptq import prepare

pytestmark = needs_models


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_pipeline("reference")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Observed at two steps, without second moments."""
    folder = tmp_path_factory.mktemp("comfy")
    (folder / "p.txt").write_text("a handwritten seven", encoding="utf-8")
    path = folder / "s.zarr"
    generate(path, Request("reference", folder / "p.txt", 1, steps=2))
    collect(path, stride=1, sites=("attn.qkv", "mlp.fc2"))
    return path


def planner(store: Path, model: LoadedModel) -> Planner:
    return Planner(model, open_store(store), Options(), ())


def test_its_own_quantizer(store: Path, model: LoadedModel) -> None:
    plan, variant = planner(store, model), Variant.parse("comfy/a16")
    readers = plan.weights.readers
    found = plan.plans(variant)
    assert {name.site for name in found} == {*SITES}
    for name, one in found.items():
        own = readers[name].matrix()
        size = 256 if own.shape[1] == 512 else 64
        assert np.array_equal(one.weight, w4a8_nearest(own, rotation=size).dequantized())
    count, size = plan.packed(variant)
    assert count == sum(np.prod(readers[name].shape) for name in found)
    # Half a byte a weight, a byte for 16 of them, four for an output.
    outputs = sum(readers[name].shape[0] for name in found)
    assert size == count // 2 + count // 16 + 4 * outputs


def test_codes_by_gptq_from_what_the_store_has(store: Path, model: LoadedModel) -> None:
    plan, variant = planner(store, model), Variant.parse("comfy-gptq@mm0")
    with pytest.raises(MissingError, match=r"comfy-gptq@mm0 needs second moments of mm0\.img"):
        plan.plans(variant)
    assert plan.packed(variant) == plan.packed(Variant.parse("comfy@mm0"))
    for name, reader in plan.weights.readers.items():
        if name.site == "mlp.fc2" and name.block == "mm0":
            diagonal = diagonal_of(plan.store, name.layer, name.site)
            assert diagonal is not None
            moments = prepare(rotated_moments(diagonal, 512, 256))
            wanted = w4a8_gptq(reader.matrix(), moments, rotation=256)[0].dequantized()
            assert np.array_equal(plan.weights.weight(variant, reader), wanted)


def test_bits_and_groups_are_not_chosen() -> None:
    for name in ("comfy-w3", "comfy-g32", "comfy-gptq-w4"):
        with pytest.raises(MisuseError, match="ComfyUI's are 4 and 16"):
            Variant.parse(name)
    assert Variant.parse("comfy-gptq/a16").name == "comfy-gptq/a16"

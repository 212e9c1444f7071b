"""Quantized weights out of a file cost what those of the store do, however AdaRound was run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.adaround.activation_inputs import ActivationPlan
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.evaluate.evaluate import evaluate
from taqstore.pipelines.evaluate.linears_of_variant import Options
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.ingest import ingest
from taqstore.pipelines.models.rounding import Settings

from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store
from taqstore import open_store
from taqstore.export.formats import export
from taqstore.kinds.quantized_linears import quantized_linears
from taqstore.kinds.weight_files import read_quantized

pytestmark = needs_models
TIMED = ActivationPlan("timed", 2, clip="mse")
ALL_SITES = ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2")
# Settings, plan, blocks, prefix.
WAYS: dict[str, tuple[Settings, ActivationPlan, list[str] | None, bool]] = {
    "as it comes": (Settings(), ActivationPlan(), None, False),
    "three bits, groups of inputs": (
        Settings(bits=3, group_size=8, clip="mse"), ActivationPlan(), ["mm1"], False,
    ),
    "weights alone": (Settings(activation_bits=0), ActivationPlan(), ["mm0", "mm2"], False),
    "groups of steps": (Settings(activation_bits=4), TIMED, ["mm0"], False),
    "a group for each step": (Settings(), ActivationPlan("timed", 3), ["mm2"], False),
    "all shifted": (Settings(), ActivationPlan("timed", 2, shifted=ALL_SITES), ["mm1"], False),
    "none shifted, after quantized blocks": (
        Settings(qdrop=0.5), ActivationPlan(shifted=()), ["mm0", "mm1"], True,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("ways"), TINY)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_costs_what_the_store_does(bare: Path, tmp_path: Path, way: str) -> None:
    settings, plan, chosen, prefix = WAYS[way]
    store, weights = tmp_path / "s.zarr", bare.with_name("w.safetensors")
    shutil.copytree(bare, store)
    brief = Settings(**{**vars(settings), "iterations": 2, "batch_size": 2, "step_rate": 0.1})
    adaround(store, settings=brief, plan=plan, chosen=chosen, prefix=prefix, local_ckpt=weights)
    opened = open_store(store)
    export("safetensors", opened, tmp_path / "q.safetensors")
    assert_same_linears(tmp_path / "q.safetensors", store, chosen or ["mm0", "mm1", "mm2"])
    where = f"@{','.join(chosen)}" if chosen else ""
    names = [f"rtn{where}", f"adaround{where}"]
    bits = settings.activation_bits
    names += [f"adaround/a{bits}-learned{where}"] if bits else []
    names = [Variant.parse(name).name for name in names]
    of_store = costs(store, names, weights)
    file = Options(weights=tmp_path / "q.safetensors")
    xr.testing.assert_identical(costs(store, names, weights, file), of_store)
    # A store that has no weights takes everything from the file.
    xr.testing.assert_identical(costs(bare, names, weights, file), of_store)
    export("adaround", opened, tmp_path / "folder")
    ingested = tmp_path / "ingested.zarr"
    shutil.copytree(bare, ingested)
    ingest([tmp_path / "folder"], ingested)
    xr.testing.assert_identical(costs(ingested, names, weights), of_store)


def costs(
    path: Path, names: list[str], weights: Path, options: Options | None = None
) -> xr.Dataset:
    variants = [Variant.parse(name) for name in names]
    found = evaluate(
        path, variants=variants, images=[1], stride=2, options=options, local_ckpt=weights
    ).result
    del found.attrs["store_digest"]
    assert (found["denoiser_error"].sel(variant=names) > 0).all()
    return found


def assert_same_linears(file: Path, store: Path, blocks: list[str]) -> None:
    found = read_quantized(file)
    linears = [x for block in blocks for x in quantized_linears(open_store(store), block)]
    assert set(found) == {linear.name for linear in linears}
    for linear in linears:
        mine = vars(found[linear.name].input)
        for name, values in vars(linear.input).items():
            np.testing.assert_array_equal(mine[name], values, err_msg=f"{linear.name} {name}")


def test_the_table_of_ways_has_cuts_that_differ_by_site(bare: Path, tmp_path: Path) -> None:
    """Else no whole that is judged by its first member would show."""
    store = tmp_path / "s.zarr"
    shutil.copytree(bare, store)
    settings = Settings(iterations=1, batch_size=2, activation_bits=4)
    adaround(
        store, settings=settings, plan=TIMED, chosen=["mm0"],
        local_ckpt=bare.with_name("w.safetensors"),
    )  # fmt: skip
    opened = open_store(store)
    lowers = {
        tuple(opened[f"weights/adaround/{site}"]["sigma_lower"].values.tolist())
        for site in ALL_SITES
    }
    assert len(lowers) > 1

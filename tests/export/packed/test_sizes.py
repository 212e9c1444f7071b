"""Planned sizes of packed models, beside a file that was written and SD3-Medium's own shapes."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
from taqstore.pipelines.models.load import load_pipeline
from taqstore.pipelines.models.table import find_model
from taqstore.pipelines.run.base_weights import base_weights
from taqstore.pipelines.run.parameters import shapes_of

from support.live_capture import needs_models
from support.packed_store import Kind, write_set
from taqstore import open_store
from taqstore.export import export
from taqstore.export.packed.sizes import Plan, planned_bytes
from taqstore.files.safetensors import SafetensorsFile
from taqstore.names import ADALN, SITES, weight_layer

pytestmark = needs_models
POSITIONS = "x_pos_embedder.pos_embed.weight"


def site(name: str) -> str:
    layer = weight_layer(name) if name.endswith(".weight") else None
    return layer.site if layer else ""


def test_a_written_model_has_the_planned_size(tmp_path: Path) -> None:
    kinds = dict.fromkeys(SITES, Kind(4, 64)) | {"mlp.fc2": Kind(6, 32, half=False)}
    path = write_set(tmp_path / "s.zarr", load_pipeline("reference"), kinds)
    store = open_store(path, chunks=None)
    export("mlx", store, tmp_path / "packed", base=base_weights(store, "mlx"))
    written = SafetensorsFile(tmp_path / "packed" / "model.safetensors")
    shapes = shapes_of(find_model("reference"))
    packed = {
        name: Plan(6, 32, half=False) if site(name) == "mlp.fc2" else Plan()
        for name in shapes
        if site(name) in SITES and f"{name.removesuffix('weight')}scales" in written
    }
    assert planned_bytes(shapes, packed) == sum(written[name].nbytes for name in written)


@pytest.mark.parametrize(
    ("group_size", "sites", "whole", "linears"),
    [
        (64, SITES, 1.85, 1.90),
        (64, (*SITES, ADALN), 3.24, 3.46),
        (128, (*SITES, ADALN), 3.41, 3.66),
    ],
)
def test_sd3_medium_by_plan(
    group_size: int, sites: tuple[str, ...], whole: float, linears: float
) -> None:
    """Four bits but for embedders and the final layer; the table of positions is 2.7 % alone."""
    shapes = shapes_of(find_model("sd3-medium"))
    packed = {
        name: Plan(4, group_size)
        for name in shapes
        if site(name) in sites and not name.startswith("final_layer")
    }
    half, planned = planned_bytes(shapes, {}), planned_bytes(shapes, packed)
    assert half == sum(2 * prod(shape) for shape in shapes.values()) == 4_169_754_752
    assert whole <= half / planned <= whole + 0.01
    table = 2 * prod(shapes[POSITIONS])
    assert linears <= (half - table) / (planned - table) <= linears + 0.01
    share = sum(prod(shapes[name]) for name in packed) * 2 / half
    assert share == pytest.approx(0.963 if ADALN in sites else 0.642, abs=1e-3)

"""Conclusions of other analysers are kept, and compared with ours to the last digit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.ingest import ingest
from taqstore.pipelines.sources import plan

from support.cli_runner import Runner
from support.source_runs import dump, one_line
from taqstore import open_store
from taqstore.errors import SourceError
from taqstore.store.attributes import attribute_of
from taqstore.testing import RunShape, make_activations
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(
    images=3, steps=6, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=2,
)  # fmt: skip
V4 = "per_timestep_quant_config_v4"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    ingest([make_activations(tmp_path / "activations", shape=SHAPE)], tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def stored(document: dict[str, Any], tmp_path: Path, name: str = "theirs") -> Any:
    path = dump(tmp_path / f"{name}.json", document)
    assert ingest([path], tmp_path / f"{name}.zarr").problems == []
    return open_store(tmp_path / f"{name}.zarr")


@pytest.mark.parametrize("form", ["quant-config", "quant-config-multitier"])
def test_a_config_of_ours_differs_in_nothing_from_its_analysis(
    run: Path, tmp_path: Path, taq: Runner, form: str
) -> None:
    assert taq("export", form, run, "-o", tmp_path / "c.json").code == 0
    assert taq("ingest", tmp_path / "c.json", tmp_path / "c.zarr").code == 0
    document = json.loads((tmp_path / "c.json").read_text())
    kept = open_store(tmp_path / "c.zarr")
    for site, name in (("mlp.fc2", "mm1.img.mlp.fc2"), ("attn.qkv", "mm1.img.attn.v_proj")):
        group = kept[f"pooled/quant_config/{site}"].sel(layer="mm1.img")
        for place, step in enumerate(group["step"].values):
            cell = group.isel(step=place)
            if "projection" in group.dims:
                cell = cell.sel(projection="v_proj")
            truth = document["per_timestep"][str(step)][name]
            assert float(cell["scale"]) == truth["scale"]
            assert int(cell["bits"]) == truth["bits"]
            if "shift" in truth:
                assert cell["shift"].values.tolist() == truth["shift"]
    if form == "quant-config":
        words = ("pooled/quant_config/mlp.fc2", "scale=alpha", "--analysis", "scales", "--csv")
        found = taq("diff", tmp_path / "c.zarr", run, *words)
        assert found.code == 0, found.err
        rows = list(csv.DictReader(io.StringIO(found.out)))
        assert len(rows) == len(document["per_timestep"]) * kept_layers(kept)
        assert {float(row["difference_max"]) for row in rows} == {0.0}
        steps = taq(
            *("diff", tmp_path / "c.zarr", run, "pooled/quant_config/mlp.fc2", "scale=step_size"),
            *("--analysis", "scales", "--option", "bits=8", "--csv"),
        )
        # The bound is no step: they differ by 127, whatever the format calls it.
        rows = list(csv.DictReader(io.StringIO(steps.out)))
        np.testing.assert_allclose([float(r["difference_relative"]) for r in rows], 126 / 127)
    assert verify_store(tmp_path / "c.zarr").damage == ()


def kept_layers(store: Any) -> int:
    return int(store["pooled/quant_config/mlp.fc2"].sizes["layer"])


def test_smoothing_factors_are_kept_and_compared(tmp_path: Path, run: Path) -> None:
    """Against `analysis.smooth` of the same statistics, with weights that are told to both."""
    import xarray as xr

    from taqstore.query.diff import diff_analysis

    group = open_store(run)["pooled/timestep_stats/mlp.fc1"].load()
    layers = [str(layer) for layer in group["layer"].values]
    weight = np.random.default_rng(2).uniform(0.1, 2, (len(layers), SHAPE.hidden))
    absmax = np.maximum(abs(group["avg_min"]), abs(group["avg_max"])).max("step").values
    factor = np.maximum(absmax.astype(np.float64), 1e-5) ** 0.7 / weight**0.3
    document = {
        "alpha": 0.7, "scale_clip": 0.0, "activations_dir": "/Users/me/activations",
        "weights_dir": "/Users/me/w", "n_layers": len(layers),
        "layers": {
            f"{layer}.mlp.fc1".replace(".", "_"): row
            for layer, row in zip(layers, factor.tolist(), strict=True)
        },
    }  # fmt: skip
    theirs = stored(document, tmp_path)
    kept = theirs["pooled/smoothquant_scales/mlp.fc1"]
    assert np.array_equal(kept["factor"].values, factor)
    assert attribute_of(kept, "source_document")["weights_dir"] == "w"
    known = xr.DataArray(weight, dims=("layer", "channel"), coords={"layer": layers})
    (found,) = diff_analysis(
        theirs, open_store(run), group="pooled/smoothquant_scales/mlp.fc1", variable="factor",
        analysis="smooth", strength=0.7, weights={"mlp.fc1": known},
    ).values()  # fmt: skip
    np.testing.assert_allclose(found["difference_relative"].values, 0, atol=1e-12)


HTG = {
    "format": "htg_groups_v1", "n_groups": 2, "n_timesteps": 4, "step_keys": ["0", "2", "4", "6"],
    "global_groups": {
        "0": {"timestep_indices": [0, 1], "step_keys": ["0", "2"], "sigma_range": [0.75, 1.0]},
        "1": {"timestep_indices": [2, 3], "step_keys": ["4", "6"], "sigma_range": [0.01, 0.5]},
    },
    "per_layer_z_bar": {
        "mm0.img.mlp.fc1": {"0": [1.0, 2.5], "1": [0.1, -3.0]},
        "mm0.txt.mlp.fc1": {"1": [7.0, 8.0]},
        "mm1.img.mlp.fc1": {},
    },
    "sigma_map": {"0": 1.0, "2": 0.75, "4": 0.5, "6": 0.01}, "metadata": {"num_images": 2},
}  # fmt: skip


def test_groups_of_steps_and_their_shifts(tmp_path: Path) -> None:
    group = stored(HTG, tmp_path)["pooled/htg_groups/mlp.fc1"]
    assert group["layer"].values.tolist() == ["mm0.img", "mm0.txt"]
    assert group["sigma_lower"].values.tolist() == [0.75, 0.01]
    assert group["sigma_upper"].values.tolist() == [1.0, 0.5]
    assert group["shift"].sel(time_group=1).values.tolist() == [[0.1, -3.0], [7.0, 8.0]]
    assert np.isnan(group["shift"].sel(time_group=0, layer="mm0.txt").values).all()
    assert attribute_of(group, "source_document")["global_groups"] == HTG["global_groups"]


def test_configs_of_groups(tmp_path: Path) -> None:
    cell = {"bits": 8, "scale": 2.5, "shift": [0.5, 0.25]}
    document = {
        "format": "per_group_quant_config_htg_v1", "n_groups": 2,
        "per_group": {
            "0": {"mm0.img.mlp.fc2": cell}, "1": {"mm0.img.mlp.fc2": {**cell, "bits": 6}},
        },
        "outlier_config": {"0": {"mm0.img.mlp.fc2": {}}}, "summary": {"total_groups": 2},
    }  # fmt: skip
    path = dump(tmp_path / "h.json", document)
    (got,) = plan(path)
    assert got.notes == ("h.json: fields not taken: outlier_config",)
    group = stored(document, tmp_path)["pooled/htg_config/mlp.fc2"]
    assert group["bits"].values.tolist() == [[8], [6]]
    assert group["shift"].dims == ("time_group", "layer", "channel")
    assert group["scale"].values.tolist() == [[2.5], [2.5]]


def config(**cell: Any) -> dict[str, Any]:
    return {"format": V4, "per_timestep": {"0": {"mm0.img.mlp.fc2": cell}}, "sigma_map": {}}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"format": V4}, "per_timestep"),
        ({"format": V4, "per_timestep": {}}, "no steps or groups"),
        ({"format": V4, "per_timestep": {"one": {}}}, "no number"),
        ({"format": V4, "per_timestep": {"0": []}}, "not an object"),
        ({"format": V4, "per_timestep": {"0": {}}}, "no layers"),
        ({"format": V4, "per_timestep": {"0": {"mm0.img.mlp.fc9": {}}}}, "mm0.img.mlp.fc9"),
        (config(scale="1"), "scale"),
        (config(scale=1.0, bits=900), "bits"),
        (config(scale=1.0, shift=[1.0, None]), "shift"),
        (config(scale=1.0, shift=4), "shift"),
        ({**HTG, "global_groups": {"0": {"sigma_range": [1.0]}}}, "no pair"),
        ({**HTG, "per_layer_z_bar": {"mm0.img.mlp.fc1": 3}}, "not an object"),
        ({"alpha": 0.5, "scale_clip": 0, "layers": {}}, "no layers"),
        (
            {
                "alpha": 0.5, "scale_clip": 0,
                "layers": {"mm0_img_mlp_fc1": [1.0], "mm1_img_mlp_fc1": [1.0, 2.0]},
            },
            "differing numbers of channels",
        ),
    ],
)  # fmt: skip
def test_documents_that_cannot_be_used(tmp_path: Path, document: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError) as caught:
        plan(dump(tmp_path / "d.json", document))
    assert says in one_line(str(caught.value))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("scale", "--option", "bits=8"), 2, "--analysis"),
        (("--analysis", "scales"), 2, "VARIABLE"),
        (("scale=alpha", "--analysis", "none"), 2, "'none' is not known"),
        (("scale=alpha", "--analysis", "scales", "--option", "bitz=8"), 2, "bitz"),
        (("scale=alpha", "--analysis", "scales", "--option", "bits=many"), 2, "many"),
        (("scale=beta", "--analysis", "scales"), 1, "beta"),
        (("skale=alpha", "--analysis", "scales"), 1, "skale"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(
    run: Path, tmp_path: Path, taq: Runner, words: tuple[str, ...], code: int, says: str
) -> None:
    stored(config(scale=1.0, bits=8), tmp_path)
    found = taq("diff", tmp_path / "theirs.zarr", run, "pooled/quant_config/mlp.fc2", *words)
    assert (found.code, says in found.err) == (code, True), found.err

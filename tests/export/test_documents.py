"""JSON exports equal the source's files float by float, and appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from support import source_documents as source
from support.documents import as_plain
from support.statistics_data import schedule_groups, split_name, timestep_groups
from support.statistics_synthetic import (
    BATCHES,
    STEPS,
    activations,
    observed,
    run_groups,
    source_statistics,
    synthetic_run,
)
from taqstore.errors import MissingError, MisuseError
from taqstore.export.documents.clip_schedules import lut_schedule, poly_schedule
from taqstore.export.documents.clips import ClipBound
from taqstore.export.documents.quant_config import quant_config
from taqstore.export.documents.quant_config_multitier import quant_config_multitier
from taqstore.export.documents.temporal_analysis import (
    temporal_analysis,
    temporal_analysis_multitier,
)
from taqstore.export.formats import FORMATS
from taqstore.files.documents import write_document

Groups = dict[str, xr.Dataset]
RUN, DOCUMENT = synthetic_run()
P999 = ClipBound("hist_p999")


@pytest.fixture(scope="module")
def groups() -> Groups:
    return run_groups(RUN, DOCUMENT)


def written(path: Path, name: str, document: Any) -> Any:
    """What a reader of the file gets; NaN and infinities are refused."""
    write_document(path, FORMATS[name].schema, document)
    return strict_load(path)


def strict_load(path: Path) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def assert_same(got: Any, expected: Any) -> None:
    """Equal as documents, with floats where floats are expected, and every float's repr."""
    assert got == expected
    assert json.dumps(got, sort_keys=True) == json.dumps(expected, sort_keys=True)


# -- the source's own files ------------------------------------------------------------------------

Make = Callable[[Groups], Any]
CONFORMANCE: dict[str, tuple[str, Make]] = {
    "quant_config.json": ("quant-config", quant_config),
    "quant_config_p999.json": ("quant-config", lambda g: quant_config(g, bound=P999)),
    "quant_config_with_outliers.json": ("quant-config", lambda g: quant_config(g, outliers=True)),
    "quant_config_multitier.json": ("quant-config-multitier", quant_config_multitier),
    "layer_temporal_analysis.json": ("temporal-analysis", temporal_analysis),
    "layer_temporal_analysis_multitier.json": (
        "temporal-analysis-multitier",
        temporal_analysis_multitier,
    ),
}


@pytest.mark.reference
@pytest.mark.parametrize("file", CONFORMANCE)
@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
def test_equal_to_the_source(reference: Path, tmp_path: Path, file: str, lazy: bool) -> None:
    name, make = CONFORMANCE[file]
    groups = timestep_groups(reference / "calibration_data" / "activations")
    if lazy:
        groups = {path: dataset.chunk({"layer": 2}) for path, dataset in groups.items()}
    got = written(tmp_path / file, name, make(groups))
    assert_same(got, json.loads((reference / "expected" / file).read_text()))
    assert list(got) == list(json.loads((reference / "expected" / file).read_text()))


@pytest.mark.reference
def test_schedules_come_back(reference: Path, tmp_path: Path) -> None:
    for name, make, file in (
        ("lut-schedule", lut_schedule, "lut_schedule_512_p100.json"),
        ("poly-schedule", poly_schedule, "polynomial_clipping_schedule_512_p100.json"),
    ):
        text = (reference / "sd3_medium" / file).read_text()
        got = written(tmp_path / file, name, make(schedule_groups(json.loads(text))))
        assert_same(got, json.loads(text))
        assert list(got["layers"]) == list(json.loads(text)["layers"])


@pytest.mark.reference
def test_polynomials_follow_from_the_table(reference: Path) -> None:
    """All 285 degrees, R2 and cv equal; coefficients to 1e-10 of each."""
    folder = reference / "sd3_medium"
    table = json.loads((folder / "lut_schedule_512_p100.json").read_text())
    text = (folder / "polynomial_clipping_schedule_512_p100.json").read_text()
    expected = json.loads(text)
    got = as_plain(poly_schedule(schedule_groups(table)))
    assert {k: v for k, v in got.items() if k != "layers"} == {
        k: v for k, v in expected.items() if k != "layers"
    }
    assert len(expected["layers"]) == 285
    for name, layer in expected["layers"].items():
        mine = got["layers"][name]
        assert {k: mine[k] for k in ("degree", "r2", "cv")} == {
            k: layer[k] for k in ("degree", "r2", "cv")
        }
        np.testing.assert_allclose(mine["coeffs"], layer["coeffs"], rtol=1e-10, atol=0)


# -- seeded runs against plain loops ---------------------------------------------------------------


def test_the_synthetic_run_has_every_case() -> None:
    """Otherwise the comparisons below would prove less than they say."""
    config = source.config_v3(RUN, DOCUMENT)
    reasons = {e["reason"] for step in config["per_timestep"].values() for e in step.values()}
    assert {
        "< A4 threshold",
        "A4-A6 range",
        "> A6 threshold",
        "post-GELU < A4 threshold",
        "post-GELU A4-A6 range",
        "> A6 threshold (SmoothQuant downgrade)",
        "A4-A6 range (SmoothQuant downgrade)",
    } <= reasons
    temporal = source.temporal_multitier(RUN)
    assert len(temporal["high_variability"]) > 1
    assert len(temporal["switchers"]) > 1
    assert temporal["always_a4"]
    multipliers = source.outlier_config(RUN[STEPS[len(STEPS) // 2]])
    assert max(max(e["multiplier_vector"]) for e in multipliers.values()) > 1
    assert 0 < len(multipliers) < len(source.names_of(RUN))
    qkv = [RUN[0][f"mm0.img.attn.{p}_proj"]["hist_p999"] for p in "qkv"]
    assert len(set(qkv)) == 3


@pytest.mark.parametrize("clip", ["absmax", "p999"])
@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
def test_quant_config(
    groups: Groups, tmp_path: Path, clip: Any, outliers: bool, lazy: bool
) -> None:
    if lazy:
        groups = {path: dataset.chunk({"layer": 2}) for path, dataset in groups.items()}
    bound = {"absmax": ClipBound("absmax"), "p999": P999}[clip]
    document = quant_config(groups, bound=bound, outliers=outliers)
    got = written(tmp_path / "config.json", "quant-config", document)
    assert_same(got, source.config_v4(RUN, DOCUMENT, clip=clip, outliers=outliers))
    assert list(got["per_timestep"]) == [str(step) for step in STEPS]
    assert all(list(step) == sorted(step) for step in got["per_timestep"].values())


def test_quant_config_multitier(groups: Groups, tmp_path: Path) -> None:
    got = written(tmp_path / "a.json", "quant-config-multitier", quant_config_multitier(groups))
    assert_same(got, source.config_v3(RUN, DOCUMENT))


def test_temporal_analysis(groups: Groups, tmp_path: Path) -> None:
    got = written(tmp_path / "a.json", "temporal-analysis", temporal_analysis(groups))
    assert_same(got, source.temporal_v4(RUN, DOCUMENT))


def test_temporal_analysis_multitier(groups: Groups, tmp_path: Path) -> None:
    document = temporal_analysis_multitier(groups)
    got = written(tmp_path / "a.json", "temporal-analysis-multitier", document)
    assert_same(got, source.temporal_multitier(RUN))


def test_one_projection_is_exported_alone(groups: Groups) -> None:
    """The projections that exist are those of the coordinate."""
    only = {
        path: dataset.sel(projection=["v_proj"]) if "projection" in dataset.coords else dataset
        for path, dataset in groups.items()
    }
    got = as_plain(quant_config(only, bound=P999))
    expected = source.config_v4(RUN, DOCUMENT, clip="p999", outliers=False)
    for step, entries in expected["per_timestep"].items():
        kept = {n: e for n, e in entries.items() if split_name(n)[2] in ("", "v_proj")}
        assert got["per_timestep"][step] == kept


def test_traced_statistics_have_clip_bounds_and_no_shift(groups: Groups) -> None:
    """`pooled/activation_stats_v1`: true extrema under their own names."""
    traced = {
        path.replace("timestep_stats", "activation_stats_v1"): dataset.rename(
            avg_min="min", avg_max="max"
        ).drop_vars(["shift", "hist_counts", "hist_edges"], errors="ignore")
        for path, dataset in groups.items()
    }
    got = as_plain(quant_config(traced))
    expected = source.config_v4(RUN, DOCUMENT, clip="absmax", outliers=False)
    for entries in expected["per_timestep"].values():
        for entry in entries.values():
            entry.pop("shift", None)
    assert got == expected
    assert as_plain(quant_config_multitier(traced))["shift_analysis"] == {}


# -- observations ----------------------------------------------------------------------------------

SITES = ("attn.qkv", "mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
def test_quant_config_from_observations_is_what_the_source_would_have_written(lazy: bool) -> None:
    tensors = {site: activations(site) for site in SITES}
    groups = {f"activations/{s}": observed(s, x, mantissa_bits=2) for s, x in tensors.items()}
    if lazy:
        groups = {path: dataset.chunk({"batch": 1}) for path, dataset in groups.items()}
    got = as_plain(quant_config(groups))
    assert got["metadata"]["selected_image_ids"] == [0, 3, 6, 9]
    assert got["metadata"]["total_processed"] == BATCHES * len(STEPS)
    assert len(got["per_timestep"]["0"]) == 3 * (3 + 1 + 1)
    for k, step in enumerate(STEPS):
        for name, entry in got["per_timestep"][str(step)].items():
            layer, site, _ = split_name(name)
            row = ("mm0.img", "mm0.txt", "mm1.img").index(layer)
            kept = source_statistics(tensors[site][:, k, row])
            absmax = max(abs(kept["avg_min"].min()), abs(kept["avg_max"].max()))
            expected = {"bits": 8, "scale": float(absmax)}
            if site == "mlp.fc2":
                expected["shift"] = kept["shift"].tolist()
            assert entry == expected


def test_percentile_of_observations_is_exact_at_ten_bits() -> None:
    """NumPy's own quantile of the very values; the source's sampled one is allowed to differ."""
    x = activations("mlp.fc1")
    got = as_plain(quant_config({"activations/mlp.fc1": observed("mlp.fc1", x)}, bound=P999))
    for k, step in enumerate(STEPS):
        values = x[:, k, 1].astype(np.float64).ravel()
        scale = got["per_timestep"][str(step)]["mm0.txt.mlp.fc1"]["scale"]
        assert scale == pytest.approx(np.quantile(values, 0.999), rel=1e-12)


def test_pooled_statistics_come_before_observations(groups: Groups) -> None:
    both = {**groups, "activations/mlp.fc1": observed("mlp.fc1", activations("mlp.fc1"))}
    assert as_plain(quant_config(both))["metadata"] == DOCUMENT["metadata"]
    assert as_plain(quant_config(both, source="activations"))["metadata"] != DOCUMENT["metadata"]


# -- schedules -------------------------------------------------------------------------------------


def test_schedules_from_statistics(groups: Groups) -> None:
    """From a run's clip bounds: a linear absent at one step is fitted to the others."""
    got = as_plain(poly_schedule(groups))
    sigma = np.array(list(DOCUMENT["sigma_map"].values()))
    assert got["sigma_range"] == [float(np.float32(0.01)), 1.0]
    assert list(got["layers"]) == sorted(n.replace(".", "_") for n in source.names_of(RUN))
    name = "mm0.txt.mlp.fc1"
    known = [i for i, step in enumerate(STEPS) if name in RUN[step]]
    assert len(known) == len(STEPS) - 1
    alpha = [RUN[STEPS[i]][name]["tensor_absmax"] for i in known]
    layer = got["layers"]["mm0_txt_mlp_fc1"]
    expected = np.polyfit(sigma[known], alpha, layer["degree"])
    np.testing.assert_allclose(layer["coeffs"], expected, rtol=1e-10)


def test_a_table_needs_every_step(groups: Groups) -> None:
    with pytest.raises(MissingError, match=r"mm0\.txt\.mlp\.fc1 is not known at 1 steps"):
        lut_schedule(groups)
    qkv = {path: d for path, d in groups.items() if path.endswith("qkv")}
    got = as_plain(lut_schedule(qkv))
    expected = [RUN[step]["mm1.img.attn.k_proj"]["tensor_absmax"] for step in STEPS]
    assert got["layers"]["mm1_img_attn_k_proj"]["alphas"] == expected


def test_polynomials_of_a_table_read_back(groups: Groups) -> None:
    table = as_plain(lut_schedule({k: d for k, d in groups.items() if k.endswith("qkv")}))
    fitted = as_plain(poly_schedule(schedule_groups(table)))
    again = as_plain(poly_schedule(schedule_groups(fitted)))
    assert_same(again, fitted)


# -- refusals --------------------------------------------------------------------------------------


def test_missing_groups_and_rules(groups: Groups) -> None:
    with pytest.raises(MissingError, match="pooled/timestep_stats/<site> or"):
        quant_config({"latents": xr.Dataset()})
    with pytest.raises(MissingError, match="activations"):
        quant_config(groups, source="activations")
    with pytest.raises(MisuseError, match="clip 'max'"):
        ClipBound("max")
    with pytest.raises(MissingError, match="lut_schedule"):
        poly_schedule({})


def test_dask_scheduler_is_the_callers(groups: Groups) -> None:
    lazy = {path: dataset.chunk({"step": 3}) for path, dataset in groups.items()}
    with dask.config.set(scheduler="synchronous"):
        assert as_plain(quant_config(lazy)) == as_plain(quant_config(groups))

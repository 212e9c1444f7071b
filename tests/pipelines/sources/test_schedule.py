"""Schedules: coefficients and tables exactly as found, under their site and layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.sources import plan

from support.source_runs import dump, one_line, run
from taqstore.errors import SourceError

SIGMAS = [1.0, 0.81, 0.10430908203125]


def poly(coeffs: list[float], r2: float = 0.5) -> dict[str, Any]:
    return {"degree": len(coeffs) - 1, "coeffs": coeffs, "r2": r2, "cv": 0.01}


def test_polynomials_by_ascending_power(tmp_path: Path) -> None:
    layers = {
        "mm10_img_mlp_fc2": poly([3.0, 2.0, 1.0]),
        "mm2_img_mlp_fc2": poly([-22.68919877871791, 38.29962898917159, -18.6, 11.05, 0.1]),
        "mm2_txt_mlp_fc2": poly([0.7]),
    }
    path = dump(tmp_path / "p.json", {"version": "poly_v1", "percentile": "p100", "layers": layers})
    (got,) = plan(path)
    written = run(got)
    (template,) = got.templates
    assert template.path == "pooled/poly_schedule/mlp.fc2"
    assert list(template.coords["layer"][1]) == ["mm2.img", "mm2.txt", "mm10.img"]
    assert list(template.coords["power"][1]) == [0, 1, 2, 3, 4]
    coefficient = written.arrays[template.path, "coefficient"]
    assert list(coefficient[0]) == [0.1, 11.05, -18.6, 38.29962898917159, -22.68919877871791]
    assert np.array_equal(coefficient[2], [1, 2, 3, np.nan, np.nan], equal_nan=True)
    assert list(written.arrays[template.path, "degree"]) == [4, 0, 2]
    assert template.attrs["source_document"] == {"version": "poly_v1", "percentile": "p100"}
    assert written.flags[template.path].shape == (3,)
    assert written.flags[template.path].all()


def test_projections_apart_only_where_they_differ(tmp_path: Path) -> None:
    layers = {
        f"mm0_img_attn_{p}_proj": poly([1.0, 2.0], r2=r)
        for p, r in zip("qkv", (1, 2, 1), strict=True)
    }
    (got,) = plan(dump(tmp_path / "p.json", {"version": "poly_v1", "layers": layers}))
    written = run(got)
    dims = {a.name: a.dims for a in got.templates[0].arrays}
    assert dims["coefficient"] == ("layer", "power")
    assert dims["r2"] == ("layer", "projection")
    assert written.arrays["pooled/poly_schedule/attn.qkv", "r2"].tolist() == [[1, 2, 1]]


def test_tables_over_sigma(tmp_path: Path) -> None:
    layers = {
        "mm0_txt_attn_o_proj": {"alphas": [5.03125, 4.1, 3]},
        "mm0_img_attn_o_proj": {"alphas": [1.0, 2.0, 0.1]},
    }
    document = {"version": "lut_v1", "sigma_range": [0.1, 1], "sigmas": SIGMAS, "layers": layers}
    (got,) = plan(dump(tmp_path / "l.json", document))
    written = run(got)
    (template,) = got.templates
    alpha = written.arrays["pooled/lut_schedule/attn.o_proj", "alpha"]
    assert alpha.dtype == np.float64
    assert alpha.tolist() == [[1.0, 5.03125], [2.0, 4.1], [0.1, 3.0]]
    assert template.coords["sigma"][1].dtype == np.float64  # 0.81 is no float32 value
    assert list(template.coords["sigma"][1]) == SIGMAS
    assert template.attrs["source_document"] == {"version": "lut_v1", "sigma_range": [0.1, 1]}


def test_sigmas_that_float32_holds_are_float32(tmp_path: Path) -> None:
    document = {
        "version": "lut_v1",
        "sigmas": [1.0, 0.5],
        "layers": {"mm0_img_mlp_fc1": {"alphas": [1, 2]}},
    }
    (got,) = plan(dump(tmp_path / "l.json", document))
    assert got.templates[0].coords["sigma"][1].dtype == np.float32


LUT = {"version": "lut_v1", "sigmas": SIGMAS}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"version": "poly_v9", "layers": {}}, "found 'poly_v9'"),
        ({"version": "poly_v1", "layers": {}}, "no layers"),
        ({"version": "poly_v1", "layers": {"mm0_img_mlp_fc9": poly([1.0])}}, "mm0_img_mlp_fc9"),
        ({"version": "poly_v1", "layers": {"mm0_img": poly([1.0])}}, "does not say which linear"),
        (
            {"version": "poly_v1", "layers": {"mm0_img_mlp_fc1": {**poly([1.0]), "degree": 3}}},
            "degree 3 with 1 coefficients",
        ),
        (
            {"version": "poly_v1", "layers": {"mm0_img_mlp_fc1": {**poly([1.0]), "r2": None}}},
            "mm0_img_mlp_fc1: no key 'r2'",
        ),
        (
            {"version": "poly_v1", "layers": {"mm0_img_attn_q_proj": poly([1.0])}},
            "q, k and v of a layer",
        ),
        (
            {"version": "poly_v1", "layers": dict.fromkeys(
                ("mm0_img_mlp_fc1", "mm_00_img_fc1"), poly([1.0]))},
            "are one layer",
        ),
        ({**LUT, "layers": {"mm0_img_mlp_fc1": {"alphas": [1.0]}}}, "1 alphas for 3 sigmas"),
        ({**LUT, "layers": {"mm0_img_mlp_fc1": {"alphas": [1, 2, "3"]}}}, "alphas: no key '2'"),
        ({**LUT, "layers": {"mm0_img_mlp_fc1": [1, 2, 3]}}, "not an object"),
        ({**LUT, "sigmas": [0.1, 1.0], "layers": {"mm0_img_mlp_fc1": {}}}, "do not descend"),
    ],
)  # fmt: skip
def test_documents_that_cannot_be_used(tmp_path: Path, document: dict, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        plan(dump(tmp_path / "s.json", document))
    assert says in one_line(str(caught.value))

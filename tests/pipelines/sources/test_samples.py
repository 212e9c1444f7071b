"""Phase 1 and Phase 2 files: values exact, timesteps matched one to one, prompts without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.sources import Options, plan

from support.source_runs import edit_npz, one_line, run
from taqstore.errors import SourceError

PROMPTS = ["a cat", "ünï", ""]


@pytest.fixture
def phase1(tmp_path: Path) -> Path:
    rng = np.random.default_rng(31)
    path = tmp_path / "DiT_cali_data.npz"
    np.savez_compressed(
        path,
        xs=rng.normal(size=(7, 3, 5, 4)).astype(np.float32),
        ts=rng.permutation(7).astype(np.float16),
        prompt_indices=rng.integers(0, 3, 7).astype(np.int32),
        cs=rng.normal(size=(3, 2, 4, 6)).astype(np.float16),
        cs_pooled=rng.normal(size=(3, 2, 5)).astype(np.float16),
        prompts=np.array(PROMPTS, dtype=object),
        cfg_scale=np.float32(1.5),
    )
    return path


@pytest.mark.parametrize("rows", [2, 3, 100])
def test_phase_1_comes_back_exactly(
    phase1: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "taqstore.pipelines.sources.samples.rows_per_shard", lambda row, n: min(rows, n)
    )
    (got,) = plan(phase1)
    written = run(got)
    with np.load(phase1, allow_pickle=True) as truth:
        for name, key in (
            ("x", "xs"),
            ("conditioning", "cs"),
            ("pooled_conditioning", "cs_pooled"),
        ):
            assert written.arrays["samples", name].dtype == truth[key].dtype
            assert np.array_equal(written.arrays["samples", name], truth[key])
        coords = got.templates[0].coords
        assert coords["timestep"][1].dtype == np.float16
        assert np.array_equal(coords["timestep"][1], truth["ts"])
        assert np.array_equal(coords["prompt_index"][1], truth["prompt_indices"])
    assert list(coords["prompt"][1]) == PROMPTS
    assert got.templates[0].attrs["cfg_scale"] == 1.5
    assert written.flags["samples"].all()
    assert written.problems == []


def test_prompts_from_a_plain_array_or_a_file(phase1: Path, tmp_path: Path) -> None:
    edit_npz(phase1, prompts=np.array(PROMPTS))
    assert list(plan(phase1)[0].templates[0].coords["prompt"][1]) == PROMPTS
    edit_npz(phase1, prompts=np.array([{}, 1, 2], dtype=object))
    with pytest.raises(SourceError, match="--prompts FILE"):
        plan(phase1)
    text = tmp_path / "p.txt"
    text.write_text("x\ny\nz\n")
    got = plan(phase1, options=Options(prompts=text))[0]
    assert list(got.templates[0].coords["prompt"][1]) == ["x", "y", "z"]
    assert text in got.inputs


def test_a_bad_row_is_refused_alone(phase1: Path) -> None:
    x = np.load(phase1, allow_pickle=True)["xs"]
    x[4, 1, 1, 1] = np.inf
    edit_npz(phase1, xs=x)
    written = run(plan(phase1)[0])
    assert list(np.flatnonzero(~written.flags["samples"])) == [4]
    assert "xs[4]: NaN or Inf" in one_line(written.problems[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ts": np.zeros(6, np.float16)}, "ts: has 6 rows, xs has 7"),
        ({"cs_pooled": np.zeros((2, 2, 5), np.float16)}, "cs_pooled: has 2 rows"),
        ({"xs": np.zeros((7, 3), np.float32)}, "xs: expected 4 dims"),
        ({"prompt_indices": np.full(7, 3, np.int32)}, "outside the 3 prompts"),
        ({"ts": np.full(7, np.nan, np.float16)}, "ts: NaN or Inf"),
        ({"cs": np.array([{}], dtype=object)}, "cs: expected 4 dims"),
    ],
)
def test_phase_1_files_that_do_not_fit(phase1: Path, changes: dict[str, Any], says: str) -> None:
    edit_npz(phase1, **changes)
    with pytest.raises(SourceError) as caught:
        plan(phase1)
    assert says in one_line(str(caught.value))


def test_a_bad_prompt_table_refuses_the_file(phase1: Path) -> None:
    edit_npz(phase1, cs=np.full((3, 2, 4, 6), np.nan, np.float16))
    written = run(plan(phase1)[0])
    assert not written.flags["samples"].any()
    assert "cs[0]: NaN or Inf" in written.problems[0]


TIMES = np.array([8.9296875, 506.25, 1000.0], np.float32)
DESCENDING = [1000.0, 506.25, 8.9296875]


def postgelu_file(path: Path, layers: dict[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(32)
    arrays: dict[str, np.ndarray] = {}
    for layer, width in layers.items():
        for t in TIMES[[1, 2, 0]]:
            low, high = np.sort(rng.normal(size=(2, width)).astype(np.float32), axis=0)
            own = {
                "count": np.array(96, np.int64),
                "mean": rng.normal(size=width),
                "std": rng.random(width),
                "min": low.astype(np.float64),
                "max": high.astype(np.float64),
                "histogram": rng.integers(0, 1000, 16),
            }
            arrays |= {f"{layer}::t={float(t):.6f}::{key}": v for key, v in own.items()}
    arrays["timesteps_unique"] = TIMES
    arrays["histogram_bin_edges"] = np.linspace(-8, 8, 17, dtype=np.float32)
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.fixture
def phase2(tmp_path: Path) -> Path:
    postgelu_file(tmp_path / "stats.npz", {"mm_01_img": 6, "mm_00_txt": 6})
    return tmp_path / "stats.npz"


def test_phase_2_comes_back_exactly(tmp_path: Path) -> None:
    arrays = postgelu_file(tmp_path / "s.npz", {"mm_01_img": 6, "mm_00_txt": 6})
    (got,) = plan(tmp_path / "s.npz")
    written = run(got)
    (template,) = got.templates
    assert template.path == "pooled/postgelu/mlp.fc2"
    assert list(template.coords["layer"][1]) == ["mm0.txt", "mm1.img"]
    assert list(template.coords["timestep"][1]) == DESCENDING
    assert template.coords["sigma"][1].dtype == np.float32
    assert list(template.coords["sigma"][1]) == [
        np.float32(t) / np.float32(1000) for t in DESCENDING
    ]
    for i, layer in enumerate(("mm_00_txt", "mm_01_img")):
        for s, t in enumerate(DESCENDING):
            for key in ("count", "mean", "std", "min", "max", "histogram"):
                expected = arrays[f"{layer}::t={t:.6f}::{key}"]
                stored = written.arrays[template.path, key][s, i]
                assert np.array_equal(stored.astype(expected.dtype), expected)
    dtypes = {a.name: a.dtype for a in template.arrays}
    assert (dtypes["min"], dtypes["mean"], dtypes["histogram"]) == ("<f4", "<f8", "<u4")
    edges = written.arrays[template.path, "bin_edges"]
    assert np.array_equal(edges, arrays["histogram_bin_edges"])
    assert written.problems == []
    assert written.flags[template.path].all()


def test_the_later_key_variant_has_a_site_per_suffix(tmp_path: Path) -> None:
    layers = {"mm_00_img:qkv_in": 4, "mm_00_img:fc2_in": 9, "mm_00_txt:qkv_in": 4}
    postgelu_file(tmp_path / "s.npz", layers)
    written = run(plan(tmp_path / "s.npz")[0])
    shapes = {path: written.arrays[path, "mean"].shape for path in written.flags}
    assert shapes == {
        "pooled/postgelu/attn.qkv": (3, 2, 4),
        "pooled/postgelu/mlp.fc2": (3, 1, 9),
    }


def test_a_timestep_without_an_array_is_refused_alone(phase2: Path) -> None:
    edit_npz(phase2, drop=("mm_01_img::t=506.250000::std",))
    written = run(plan(phase2)[0])
    (flags,) = written.flags.values()
    assert list(flags) == [True, False, True]
    assert "mm_01_img::t=506.250000::std: missing" in one_line(written.problems[0])


def test_a_nan_is_refused_alone(phase2: Path) -> None:
    edit_npz(phase2, **{"mm_01_img::t=8.929688::mean": np.full(6, np.nan)})
    written = run(plan(phase2)[0])
    (flags,) = written.flags.values()
    assert list(flags) == [True, True, False]
    assert "mm_01_img::t=8.929688::mean: NaN or Inf" in one_line(written.problems[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mm_01_img::t=8.929690::mean": np.zeros(6)}, "matches no timestep of its own"),
        ({"mm_01_img::t=77.000000::mean": np.zeros(6)}, "matches no timestep of its own"),
        ({"mm_01_img::t=506.250000::median": np.zeros(6)}, "unknown key"),
        ({"mm_01_wat::t=506.250000::mean": np.zeros(6)}, "mm_01_wat"),
        ({"timesteps_unique": TIMES.astype(np.float64)}, "not a finite float32 vector"),
    ],
)
def test_phase_2_files_that_cannot_be_used(
    phase2: Path, changes: dict[str, Any], says: str
) -> None:
    edit_npz(phase2, **changes)
    with pytest.raises(SourceError) as caught:
        plan(phase2)
    assert says in one_line(str(caught.value))
